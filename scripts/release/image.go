package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// repositoryName is where the image is published.
const repositoryName = "ghcr.io/netcleat/netcleat"

// image makes the image, which installs the plugins on the node where it runs, as an OCI layout in a tar archive.
// It has the two programs and nothing else.
func (m *maker) image(archs []string) error {
	index := v1.ImageIndex(mutate.IndexMediaType(empty.Index, types.OCIImageIndex))
	for _, arch := range archs {
		if !slices.Contains(images, arch) {
			continue
		}
		img, err := m.imageFor(arch)
		if err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	tag := "v" + m.version
	name := map[string]string{"io.containerd.image.name": repositoryName + ":" + tag, "org.opencontainers.image.ref.name": tag}
	dir := filepath.Join(m.work, "image")
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	if err := path.AppendIndex(index, layout.WithAnnotations(name)); err != nil {
		return err
	}
	content, err := m.tarOf(dir)
	if err != nil {
		return err
	}
	return m.write("netcleat-image-"+tag+".tar", content)
}

// imageFor makes the image for one architecture.
func (m *maker) imageFor(arch string) (v1.Image, error) {
	var content bytes.Buffer
	a := &archive{Writer: tar.NewWriter(&content), time: m.time}
	a.copy("cni", 0o755, m.program(arch, "cni"))
	a.copy("netcleat", 0o755, m.program(arch, "netcleat"))
	a.copy("LICENSE", 0o644, filepath.Join(m.root, "LICENSE"))
	if err := errors.Join(a.err, a.Close()); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content.Bytes())), nil }
	layer, err := tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	made := v1.Time{Time: m.time}
	img, err := mutate.Append(base, mutate.Addendum{Layer: layer, History: v1.History{CreatedBy: "make release", Created: made}})
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Created, config.Architecture, config.OS = made, arch, "linux"
	config.Config = v1.Config{
		Entrypoint: []string{"/netcleat"}, Cmd: []string{"install", "/host/opt/cni/bin"}, WorkingDir: "/", User: "0:0",
		Labels: map[string]string{
			"org.opencontainers.image.title": "netcleat", "org.opencontainers.image.description": "Installs the netcleat CNI plugins on a node",
			"org.opencontainers.image.source": project, "org.opencontainers.image.version": "v" + m.version,
			"org.opencontainers.image.revision": m.revision, "org.opencontainers.image.licenses": "Apache-2.0",
		},
	}
	return mutate.ConfigFile(img, config)
}

// tarOf is an archive of a directory's files.
func (m *maker) tarOf(dir string) ([]byte, error) {
	var content bytes.Buffer
	a := &archive{Writer: tar.NewWriter(&content), time: m.time}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		name, relErr := filepath.Rel(dir, path)
		switch {
		case err != nil || relErr != nil:
			return errors.Join(err, relErr)
		case d.Type().IsRegular():
			a.copy(name, 0o644, path)
		case name != ".":
			a.dir(name + "/")
		}
		return a.err
	})
	return content.Bytes(), errors.Join(err, a.err, a.Close())
}

// manifest writes what kubectl apply installs from, of this version's image.
func (m *maker) manifest() error {
	dir := filepath.Join(m.root, "deploy/kubernetes")
	namespace, err := os.ReadFile(filepath.Join(dir, "namespace.yaml"))
	set, setErr := os.ReadFile(filepath.Join(dir, "daemonset.yaml"))
	if err := errors.Join(err, setErr); err != nil {
		return err
	}
	all := slices.Concat(namespace, []byte("---\n"), set) // in this order: kubectl creates them one after the other
	all = imageTag.ReplaceAll(all, []byte("${1}v"+m.version))
	return m.write("netcleat-kubernetes-v"+m.version+".yaml", all)
}

var imageTag = regexp.MustCompile(`(?m)^(\s*(?:- )?image: ` + regexp.QuoteMeta(repositoryName) + `:).*$`)
