package bed

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
)

// Image makes an archive of an image as `docker save` writes it, with Rootfs's
// file system in one layer, and returns its path. A container of it serves on
// port 80.
func (h *Host) Image(tag string) (path string) {
	h.t.Helper()
	var layer, all bytes.Buffer
	w := tar.NewWriter(&layer)
	h.must(errors.Join(w.AddFS(os.DirFS(h.Rootfs("rootfs"))), w.Close()))
	type object map[string]any
	conf, err := json.Marshal(object{
		"architecture": "amd64", "os": "linux",
		"config": object{"Cmd": []string{"/bin/peer", "serve", "80"}},
		"rootfs": object{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer.Bytes()))}},
	})
	h.must(err)
	manifest, err := json.Marshal([]object{{"Config": "config.json", "RepoTags": []string{tag}, "Layers": []string{"layer.tar"}}})
	h.must(err)
	w = tar.NewWriter(&all)
	files := map[string][]byte{"config.json": conf, "manifest.json": manifest, "layer.tar": layer.Bytes()}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		h.must(w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name]))}))
		_, err := w.Write(files[name])
		h.must(err)
	}
	h.must(w.Close())
	path = h.Dir + "/image.tar"
	h.must(os.WriteFile(path, all.Bytes(), 0o600))
	return path
}
