package clusterd

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.uber.org/zap"
	"go.yaml.in/yaml/v3"

	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/slot"
	clusterlocal "github.com/netcleat/netcleat/plugins/clusterlocal-ipam"
)

// DefaultSettings is where the settings are.
const DefaultSettings = "/etc/netcleat/cluster.yaml"

// Settings are what a host must be told to join a cluster.
type Settings struct {
	Endpoints    []string `yaml:"endpoints"`    // of etcd
	CA           string   `yaml:"ca"`           // file: whom to believe that it is etcd
	Cert         string   `yaml:"cert"`         // file: this host's certificate
	Key          string   `yaml:"key"`          // file: its key
	Username     string   `yaml:"username"`     // of etcd
	PasswordFile string   `yaml:"passwordFile"` // a file with the password and nothing else
	Host         string   `yaml:"host"`         // this host's name in the cluster; the system's
	Prefix       string   `yaml:"prefix"`       // of all keys
	Socket       string   `yaml:"socket"`       // that plugins ask on
	StateDir     string   `yaml:"stateDir"`
	NetworkDir   string   `yaml:"networkDir"` // where the cluster's networks are made; "": none are
	Dev          string   `yaml:"dev"`        // the interface to the other hosts, for these networks
	Port         int      `yaml:"port"`       // of VXLAN, for these networks
}

// ReadSettings reads the file.
func ReadSettings(path string) (*Settings, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s, err := parseSettings(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func parseSettings(text []byte) (*Settings, error) {
	s := &Settings{Prefix: "/netcleat/", Socket: string(clusterlocal.DefaultSocket), StateDir: "/var/lib/netcleat/cluster"}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(s); err != nil {
		return nil, err
	}
	if s.Host == "" {
		name, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("host: %w", err)
		}
		s.Host = name
	}
	return s, s.check()
}

func (s *Settings) check() error {
	switch {
	case len(s.Endpoints) == 0:
		return errors.New("endpoints: none; want the URLs of etcd's members")
	case !slot.IsHost(s.Host):
		return fmt.Errorf("host %q: want letters, digits, '.', '-' and '_'", s.Host)
	case !strings.HasPrefix(s.Prefix, "/") || !strings.HasSuffix(s.Prefix, "/") || len(s.Prefix) < 3:
		return fmt.Errorf("prefix %q: want /NAME/", s.Prefix)
	case (s.Cert == "") != (s.Key == ""):
		return errors.New("cert and key: one without the other")
	case (s.NetworkDir == "") != (s.Dev == ""):
		return errNoUnderlay
	case s.Dev != "" && !nl.IsName(s.Dev):
		return fmt.Errorf("dev %q: not a name that an interface can have", s.Dev)
	case s.Port < 0 || s.Port > 65535:
		return fmt.Errorf("port %d: not from 1 to 65535", s.Port)
	case (s.Username == "") != (s.PasswordFile == ""):
		return errors.New("username and passwordFile: one without the other")
	}
	for _, e := range s.Endpoints {
		u, err := url.Parse(e)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("endpoint %q: want https://HOST:2379", e)
		}
		if u.User != nil {
			return errors.New("endpoints: no password in a URL: use username and passwordFile")
		}
		if u.Scheme == "http" && (s.CA != "" || s.Cert != "") {
			return fmt.Errorf("endpoint %q: certificates are given, and it is without encryption", e)
		}
	}
	return nil
}

func (s *Settings) password() (string, error) {
	if s.PasswordFile == "" {
		return "", nil
	}
	b, err := os.ReadFile(s.PasswordFile)
	return strings.TrimRight(string(b), "\n"), err
}

func (s *Settings) tls() (*tls.Config, error) {
	if s.CA == "" && s.Cert == "" && !strings.HasPrefix(s.Endpoints[0], "https") {
		return nil, nil
	}
	info := transport.TLSInfo{TrustedCAFile: s.CA, CertFile: s.Cert, KeyFile: s.Key, Logger: quiet()}
	return info.ClientConfig()
}

// quiet is the client's log: what matters comes as an error.
func quiet() *zap.Logger { return zap.NewNop() }
