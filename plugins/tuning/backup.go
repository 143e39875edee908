package tuning

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/netcleat/netcleat/pkg/plugin"
)

// backupPath is the reference's file with what the link's attributes were. We
// write it, too, so that the reference can undo what this suite did; DEL of
// either removes it. "" where the name is too long for a file, which the
// reference cannot handle.
func backupPath(dir string, c *plugin.Call) string {
	const limit = 255
	name := c.ContainerID + "_" + c.IfName + ".json"
	if len(name) > limit {
		return ""
	}
	return filepath.Join(dir, name)
}

// readBackup returns what a backup holds. exists is true for a broken one, too,
// which holds nothing.
func readBackup(path string) (a attributes, exists bool, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || path == "" {
		return a, false, nil
	}
	if err != nil {
		return a, false, err
	}
	if json.Unmarshal(b, &a) != nil {
		return attributes{}, true, nil
	}
	return a, true, nil
}

// writeBackup writes it in the reference's form, at once or not at all.
func writeBackup(path string, a attributes) error {
	b, err := json.MarshalIndent(a, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tuning-")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, removeFile(f.Name()))
	}
	return nil
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
