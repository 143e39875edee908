package dnsname

import (
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/pkg/fields"
	"github.com/netcleat/netcleat/pkg/file"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// shortID is how many characters of a container's ID runtimes show.
const shortID = 12

// names returns the container's own names and its aliases. A name that DNS
// cannot have is left out with a note: the container is to start all the same.
func names(c *plugin.Call, conf config) (own, aliases []string) {
	add := func(list *[]string, words ...string) {
		for _, w := range words {
			name, ok := Canonical(w)
			switch {
			case w == "":
			case !ok:
				c.Note("dnsname: %q: not a name that DNS can have (left out)", w)
			case !slices.Contains(own, name) && !slices.Contains(aliases, name):
				*list = append(*list, name)
			}
		}
	}
	namespace, id, isNerdctls := nerdctlID(c.ContainerID)
	notes := map[string]string{}
	if isNerdctls {
		notes = annotations(namespace, id)
	}
	add(&own, arg(c.Args, "K8S_POD_NAME"), notes["nerdctl/name"], notes["nerdctl/hostname"], id[:min(len(id), shortID)])
	add(&aliases, conf.Aliases...)
	if len(conf.Aliases) == 0 {
		add(&aliases, list(notes[aliasKey])...)
	}
	return own, aliases
}

// Known returns the names and aliases that an attachment's record has.
func Known(r journal.Record) []string {
	st := State{}
	if r.GetState(&st) != nil {
		return nil // what cannot be read has no names
	}
	return slices.Concat(st.Names, st.Aliases)
}

// arg returns the value of a key of CNI_ARGS.
func arg(args, key string) string {
	for pair := range strings.SplitSeq(args, ";") {
		if k, v, ok := strings.Cut(pair, "="); ok && k == key {
			return v
		}
	}
	return ""
}

// nerdctlID takes nerdctl's IDs apart, NAMESPACE-ID. For others id is all of it.
func nerdctlID(containerID string) (namespace, id string, isNerdctls bool) {
	i := strings.LastIndexByte(containerID, '-')
	if b, err := hex.DecodeString(containerID[i+1:]); i <= 0 || err != nil || len(b) != 32 {
		return "", containerID, false
	}
	return containerID[:i], containerID[i+1:], true
}

// bundles is where containerd keeps the OCI bundles of running containers.
const bundles = "/run/containerd/io.containerd.runtime.v2.task"

// annotations returns those of the container's OCI bundle, where nerdctl writes
// the container's name and labels. nerdctl calls plugins from a hook of the OCI
// runtime, in the bundle's directory.
func annotations(namespace, id string) map[string]string {
	for _, dir := range []string{".", filepath.Join(bundles, namespace, id)} {
		b, err := file.Read(filepath.Join(dir, "config.json"))
		if err != nil {
			continue
		}
		o, err := fields.Parse(b)
		all := map[string]string{}
		if err == nil && json.Unmarshal(o["annotations"], &all) == nil && isOf(all, id) {
			return all
		}
	}
	return nil
}

// isOf reports whether the annotations are the container's: the working directory
// may be another one's.
func isOf(annotations map[string]string, id string) bool {
	return strings.HasSuffix(annotations["nerdctl/state-dir"], "/"+id)
}
