package dnsname

import (
	"net/netip"
	"strings"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// config is what the configuration asks for.
type config struct {
	Domain    string // in lower case, without a trailing dot; "" is none
	Aliases   []string
	Upstreams []netip.AddrPort
}

// aliasKey is the annotation that lists aliases, separated by commas, where the
// runtime passes none.
const aliasKey = "netcleat.dev/aliases"

// document is the configuration as it is written.
type document struct {
	DomainName    string   `json:"domainName"`
	Nameservers   []string `json:"nameservers"`
	RuntimeConfig struct {
		Aliases     map[string][]string `json:"aliases"`
		Annotations map[string]string   `json:"io.kubernetes.cri.pod-annotations"`
	} `json:"runtimeConfig"`
}

func parse(c *plugin.Call) (conf config, err error) {
	var doc document
	if err := c.Decode(&doc); err != nil {
		return conf, err
	}
	conf.Aliases = append(doc.RuntimeConfig.Aliases[c.Conf.Name], list(doc.RuntimeConfig.Annotations[aliasKey])...)
	domain, ok := Canonical(doc.DomainName)
	if doc.DomainName != "" && !ok {
		return conf, cnierr.Config("domainName %q: not a domain's name", doc.DomainName)
	}
	conf.Domain = domain
	for _, text := range doc.Nameservers {
		at, err := ParseServer(text)
		if err != nil {
			return conf, cnierr.Config("nameservers: %w", err)
		}
		conf.Upstreams = append(conf.Upstreams, at)
	}
	return conf, nil
}

// dnsPort is DNS's.
const dnsPort = 53

// ParseServer reads the address of a DNS server, with a port or without.
func ParseServer(text string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(a, dnsPort), nil
	}
	return netip.ParseAddrPort(text)
}

// list takes a list apart that is written with commas.
func list(text string) (all []string) {
	for word := range strings.SplitSeq(text, ",") {
		if word = strings.TrimSpace(word); word != "" {
			all = append(all, word)
		}
	}
	return all
}

// The limits of a name (RFC 1035), in bytes.
const (
	maxName  = 253
	maxLabel = 63
)

// Canonical returns a name in lower case and without its trailing dot; ok says
// whether it is one: letters, digits, dashes and underscores between dots.
func Canonical(text string) (name string, ok bool) {
	name = strings.ToLower(strings.TrimSuffix(text, "."))
	if len(name) > maxName {
		return "", false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel || strings.ContainsFunc(label, outside) {
			return "", false
		}
	}
	return name, true
}

func outside(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
}
