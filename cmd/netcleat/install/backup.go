package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// BackupDir is where a directory's backups are kept, inside it: each in a
// directory that is named after the time, with a manifest.
const BackupDir = ".netcleat-backup"

const (
	manifestName   = "manifest.json"
	manifestFormat = 1
	stampLayout    = "20060102T150405.000000000Z" // sorts by time
)

// manifest says what a backup holds.
type manifest struct {
	Format int    `json:"format"`
	Files  []kept `json:"files"`
}

// kept is one name and what stood there; Was is empty where nothing did.
type kept struct {
	Name string `json:"name"`
	Was  string `json:"was,omitempty"`
	Sum  string `json:"sha256,omitempty"`
}

// backup keeps what stands under the names. The manifest comes last: a backup
// without one was not finished, and nothing was replaced after it.
func (o Options) backup(all []name) error {
	dir := filepath.Join(o.Dir, BackupDir, time.Now().UTC().Format(stampLayout))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	m := manifest{Format: manifestFormat}
	for _, n := range all {
		k := kept{Name: n.name}
		if n.owner != nobody {
			k.Was, k.Sum = n.String(), n.sum
			if err := linkOrCopy(o.path(n.name), filepath.Join(dir, n.name)); err != nil {
				return err
			}
		}
		m.Files = append(m.Files, k)
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, manifestName), append(b, '\n')); err != nil {
		return err
	}
	if err := errors.Join(syncDir(dir), syncDir(filepath.Dir(dir)), syncDir(o.Dir)); err != nil {
		return err
	}
	_, err = fmt.Fprintf(o.Out, "backup in %s\n", dir)
	return err
}

// syncDir waits until a directory's entries are on the disk.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// writeFile writes a whole file or none.
func writeFile(path string, b []byte) error {
	temp := path + ".new"
	f, err := os.Create(temp)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, remove(temp))
	}
	return os.Rename(temp, path)
}

// Restore puts the newest backup back, each name in one rename, and removes it.
// Names that were free then and are ours now become free again. A restoration
// that was interrupted is taken up by the next.
func Restore(ctx context.Context, o Options) error {
	dir, m, err := o.newestBackup()
	if err != nil {
		return err
	}
	lock, err := o.open()
	if err != nil {
		return err
	}
	if lock != nil {
		defer func() { _ = lock.Close() }()
	}
	files, err := pending(dir, m.Files)
	if err != nil {
		return err
	}
	now, err := o.occupants(ctx, files)
	if err != nil {
		return err
	}
	if err := o.refuse(now); err != nil {
		return err
	}
	for i, k := range files {
		if err := o.putBack(filepath.Join(dir, k.Name), now[i], k); err != nil {
			return err
		}
	}
	if o.DryRun {
		return nil
	}
	return errors.Join(lock.Sync(), os.RemoveAll(dir), removeEmpty(filepath.Dir(dir)))
}

// backups are the manifests of the finished backups, the oldest first.
func (o Options) backups() ([]string, error) {
	found, err := filepath.Glob(filepath.Join(o.Dir, BackupDir, "*", manifestName))
	slices.Sort(found)
	return found, err
}

// newestBackup finds the newest finished backup.
func (o Options) newestBackup() (string, manifest, error) {
	found, err := o.backups()
	if err != nil {
		return "", manifest{}, err
	}
	if len(found) == 0 {
		return "", manifest{}, fmt.Errorf("%s: no backup", o.Dir)
	}
	return readManifest(found[len(found)-1])
}

// readManifest returns a backup's directory, and what it holds.
func readManifest(path string) (string, manifest, error) {
	var m manifest
	b, err := os.ReadFile(path)
	if err != nil {
		return "", m, err
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return "", m, fmt.Errorf("%s: %w", path, err)
	}
	if m.Format != manifestFormat {
		return "", m, fmt.Errorf("%s: format %d is not known", path, m.Format)
	}
	for _, k := range m.Files {
		if k.Name != filepath.Base(k.Name) {
			return "", m, fmt.Errorf("%s: name %q leaves the directory", path, k.Name)
		}
	}
	return filepath.Dir(path), m, nil
}

// pending leaves out what an interrupted restoration has put back already.
func pending(dir string, files []kept) ([]kept, error) {
	var left []kept
	for _, k := range files {
		_, err := os.Lstat(filepath.Join(dir, k.Name))
		if k.Was != "" && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if k.Was != "" && err != nil {
			return nil, err
		}
		if err := k.verify(dir); err != nil {
			return nil, err
		}
		left = append(left, k)
	}
	return left, nil
}

// verify refuses a file of a backup that has changed since. Backups of earlier
// versions have no checksums.
func (k kept) verify(dir string) error {
	if k.Was == "" || k.Sum == "" {
		return nil
	}
	path := filepath.Join(dir, k.Name)
	sum, err := checksum(path)
	if err != nil {
		return err
	}
	if sum != k.Sum {
		return fmt.Errorf("%s: SHA-256 is %s, was %s when it was kept: it is damaged, and nothing was changed", path, sum, k.Sum)
	}
	return nil
}

// occupants finds out what stands now under the names of the backup.
func (o Options) occupants(ctx context.Context, files []kept) ([]name, error) {
	all := make([]name, 0, len(files))
	for _, k := range files {
		who, err := identify(ctx, o.path(k.Name))
		if err != nil {
			return nil, err
		}
		all = append(all, name{name: k.Name, occupant: who})
	}
	return all, nil
}

// putBack restores one name from the file that was kept for it.
func (o Options) putBack(file string, now name, k kept) error {
	if k.Was == "" {
		return o.free(now)
	}
	saved, err := os.Lstat(file)
	if err != nil {
		return err
	}
	if o.DryRun {
		_, err := fmt.Fprintf(o.Out, "%s: would be %s again\n", k.Name, k.Was)
		return err
	}
	// Renaming one of two names of the same file to the other does nothing.
	if st, err := os.Lstat(o.path(k.Name)); err != nil || !os.SameFile(st, saved) {
		if err := os.Rename(file, o.path(k.Name)); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(o.Out, "%s: %s again\n", k.Name, k.Was)
	return err
}

// free takes a name away that the backup says was free.
func (o Options) free(now name) error {
	if now.owner != ours {
		return nil
	}
	if o.DryRun {
		_, err := fmt.Fprintf(o.Out, "%s: would be removed\n", now.name)
		return err
	}
	if err := remove(o.path(now.name)); err != nil {
		return err
	}
	_, err := fmt.Fprintf(o.Out, "%s: removed\n", now.name)
	return err
}

// removeEmpty removes a directory that holds nothing.
func removeEmpty(dir string) error {
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
