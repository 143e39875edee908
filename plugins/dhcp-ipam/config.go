package dhcp

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/netcleat/netcleat/pkg/cnierr"
)

// DefaultSocket is where the daemon listens.
const DefaultSocket = "/run/cni/dhcp.sock"

// Config is the ipam section of the configuration.
type Config struct {
	DaemonSocketPath string    `json:"daemonSocketPath"`
	Provide          []Provide `json:"provide"`
	Request          []Request `json:"request"`
	Priority         int       `json:"priority"`
}

// Provide is an option that the client sends, with a fixed value or one from
// CNI_ARGS. An empty value sends nothing.
type Provide struct {
	Option  string `json:"option"`
	Value   string `json:"value"`
	FromArg string `json:"fromArg"`
}

// Request is an option that the client asks for. SkipDefault, in any of them,
// drops the two that are always asked for.
type Request struct {
	Option      string `json:"option"`
	SkipDefault bool   `json:"skipDefault"`
}

// Option is a DHCP option with its value.
type Option struct {
	Code  uint8  `json:"code"`
	Value []byte `json:"value"`
}

// The options that have a name here.
const (
	optSubnetMask  = 1
	optRouters     = 3
	optHostName    = 12
	optVendorClass = 60
	optClientID    = 61
	optUserClass   = 77
)

// Socket returns the daemon's socket.
func (c Config) Socket() string {
	if c.DaemonSocketPath == "" {
		return DefaultSocket
	}
	return c.DaemonSocketPath
}

// Options returns the options to send, given CNI_ARGS, and the codes of those to
// ask for.
func (c Config) Options(args string) (provide []Option, request []byte, err error) {
	for _, p := range c.Provide {
		code, err := optionCode(p.Option)
		if err != nil {
			return nil, nil, err
		}
		values := []string{p.Value}
		if p.FromArg != "" {
			values = append(values, arg(args, p.FromArg))
		}
		for _, v := range values {
			if len(v) > 255 {
				return nil, nil, cnierr.Config("value too long for option %q: %q", p.Option, v)
			}
			if v != "" {
				provide = append(provide, Option{code, []byte(v)})
			}
		}
	}
	request, err = c.requested()
	return provide, request, err
}

func (c Config) requested() ([]byte, error) {
	var codes []byte
	defaults := []byte{optRouters, optSubnetMask}
	for _, r := range c.Request {
		if r.SkipDefault {
			defaults = nil
		}
		if r.Option == "" {
			continue
		}
		code, err := optionCode(r.Option)
		if err != nil {
			return nil, err
		}
		codes = append(codes, code)
	}
	return append(codes, defaults...), nil
}

// optionCode reads an option's number or its name in dhcp-options(5).
func optionCode(s string) (uint8, error) {
	switch s {
	case "dhcp-client-identifier":
		return optClientID, nil
	case "subnet-mask":
		return optSubnetMask, nil
	case "routers":
		return optRouters, nil
	case "host-name":
		return optHostName, nil
	case "user-class":
		return optUserClass, nil
	case "vendor-class-identifier":
		return optVendorClass, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, cnierr.Config("Can not parse option %q: %w", s, err)
	}
	return uint8(n), nil
}

// arg returns the value of a key of CNI_ARGS, of the last pair that has it.
func arg(args, key string) (value string) {
	for pair := range strings.SplitSeq(args, ";") {
		if k, v, ok := strings.Cut(pair, "="); ok && k == key {
			value = v
		}
	}
	return value
}

// Network is the part of the configuration that this plugin and its daemon read.
type Network struct {
	Name string  `json:"name"`
	IPAM *Config `json:"ipam"` // nil: there is none
}

// ParseNetwork reads the configuration. On an error it returns what it could
// read.
func ParseNetwork(stdin []byte) (Network, error) {
	var n Network
	if err := json.Unmarshal(stdin, &n); err != nil {
		return n, cnierr.Decode(fmt.Errorf("error parsing netconf: %w", err))
	}
	return n, nil
}
