package create

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/netcleat/netcleat/cmd/netcleat/show"
)

// list is a list of plugins as it is written.
type list struct {
	CNIVersion  string      `json:"cniVersion"`
	CNIVersions []string    `json:"cniVersions"`
	Name        string      `json:"name"`
	DisableGC   bool        `json:"disableGC"`
	Mark        string      `json:"netcleat.dev/made-by"` // plugins do not see it: libcni passes each only its own object
	Labels      show.Labels `json:"netcleat.dev/labels,omitempty"`
	Plugins     []object    `json:"plugins"`
}

// mark is what tells the networks that were made here from all others.
const mark = "network create"

func (l list) text() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(l)
	return b.Bytes(), err
}

// object is a JSON object whose members stay in order.
type object []member

type member struct {
	Key   string
	Value any
}

// set gives the object a member of that value, in the place of one it has.
func (o *object) set(key string, value any) {
	if i := slices.IndexFunc(*o, func(m member) bool { return m.Key == key }); i >= 0 {
		(*o)[i].Value = value
		return
	}
	*o = append(*o, member{key, value})
}

// get returns the member's value, or nil.
func (o object) get(key string) any {
	for _, m := range o {
		if m.Key == key {
			return m.Value
		}
	}
	return nil
}

// MarshalJSON implements json.Marshaler.
func (o object) MarshalJSON() ([]byte, error) {
	b := []byte("{")
	for i, m := range o {
		if i > 0 {
			b = append(b, ',')
		}
		key, err := json.Marshal(m.Key)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(m.Value)
		if err != nil {
			return nil, err
		}
		b = append(append(append(b, key...), ':'), value...)
	}
	return append(b, '}'), nil
}
