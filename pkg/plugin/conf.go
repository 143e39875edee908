package plugin

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/fields"
	"github.com/netcleat/netcleat/pkg/jsontext"
)

// Conf is what the configuration of every plugin has.
type Conf struct {
	CNIVersion string          `json:"cniVersion"`
	Name       string          `json:"name"`
	Type       string          `json:"type"`
	IPAM       IPAMConf        `json:"ipam"`
	DNS        types.DNS       `json:"dns"`
	PrevResult json.RawMessage `json:"prevResult"`
	// Debug writes the call's steps to a log; ours, not the reference's.
	Debug any `json:"debug"`

	Valid       json.RawMessage `json:"cni.dev/valid-attachments"`
	Attachments json.RawMessage `json:"cni.dev/attachments"` // how libcni has misspelt it
}

// IPAMConf is what a main plugin reads of its ipam section.
type IPAMConf struct {
	Type    string `json:"type"`
	DataDir string `json:"dataDir"`
}

// Attachment is one of GC's valid attachments.
type Attachment struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"`
}

// decodeConf reads the common part. For DEL and GC a field of the wrong type is
// left at its zero value and reported as note: nothing but the name is needed to
// remove what is there.
func (c *Call) decodeConf() (conf Conf, note, err error) {
	if c.fields, err = fields.Parse(c.Stdin); err == nil {
		err = c.fields.Into(&conf)
	}
	if c.fields != nil && c.Removing() {
		note, err = err, nil
	}
	if err != nil {
		return conf, note, cnierr.Decode(fmt.Errorf("configuration: %w", err))
	}
	if conf.CNIVersion == "" {
		conf.CNIVersion = "0.1.0" // as the specification's first version had no field for it
	}
	return conf, note, checkName(conf.Name)
}

// checkName enforces the specification's grammar for network names, which also
// keeps them from leaving the directories that are named after them.
func checkName(name string) error {
	if name == "" {
		return cnierr.Config("missing network name")
	}
	if !isIdentifier(name) {
		return cnierr.Config("invalid characters found in network name %q", name)
	}
	return nil
}

// isIdentifier reports whether s matches [a-zA-Z0-9][a-zA-Z0-9_.-]*.
func isIdentifier(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && (c == '_' || c == '.' || c == '-'):
		default:
			return false
		}
	}
	return s != ""
}

// valid returns GC's list of valid attachments. known is false where the key is
// absent: then nothing may be removed. null and [] say that none is valid. An entry
// that is not complete says nothing of the attachment that it was to keep.
func (c *Conf) valid() (list []Attachment, known bool, err error) {
	raw := c.Valid
	if raw == nil {
		raw = c.Attachments
	}
	if raw == nil {
		return nil, false, nil
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, false, cnierr.Decode(fmt.Errorf("cni.dev/valid-attachments: %w", err))
	}
	for i, a := range list {
		if a.ContainerID == "" || a.IfName == "" {
			return nil, false, cnierr.Decode(fmt.Errorf("cni.dev/valid-attachments: entry %d: containerID or ifname is missing (nothing removed)", i))
		}
	}
	return list, true, nil
}

// withoutPrevResult returns the configuration as reconcile needs it.
func (c *Call) withoutPrevResult() json.RawMessage {
	if len(c.Conf.PrevResult) == 0 {
		return c.Stdin
	}
	rest := maps.Clone(c.fields)
	delete(rest, "prevResult")
	return text(rest)
}

// text is the object as it is written.
func text(o fields.Object) json.RawMessage {
	list := make([]jsontext.Field, 0, len(o))
	for k, raw := range o {
		list = append(list, jsontext.Field{Key: k, Value: jsontext.Value(raw)})
	}
	return json.RawMessage(jsontext.Sorted(list...))
}
