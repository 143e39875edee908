package portmap

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/iptables"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// config is what the configuration asks for.
type config struct {
	Backend      string // "nftables", "iptables", or "" for the host's
	SNAT         bool
	MasqAll      bool
	MarkBit      int
	SetMarkChain string
	Conditions   conditions
	Replace      bool // a port of another live container is taken over
	Mappings     []mapping
}

// conditions are what packets must meet beside, for IPv4 and for IPv6.
type conditions struct {
	V4, V6 []string
}

func (c conditions) of(v6 bool) []string {
	if v6 {
		return c.V6
	}
	return c.V4
}

// mapping publishes Count ports from Host on, at HostIP, to those from Container
// on. Without a HostIP it is for all local addresses, of one family where Only
// says so.
type mapping struct {
	HostIP    netip.Addr `json:"hostIP,omitzero"`
	Only      string     `json:"only,omitempty"` // "4", "6", or "" for both
	Proto     proto      `json:"proto"`
	Host      uint16     `json:"host"`
	Container uint16     `json:"container"`
	Count     uint16     `json:"count"`
}

// isFor reports whether the mapping is for containers' addresses of a family.
func (m mapping) isFor(v6 bool) bool {
	if m.HostIP.IsValid() {
		return m.HostIP.Is6() == v6
	}
	return m.Only == "" || (m.Only == "6") == v6
}

func (m mapping) last() uint16 { return m.Host + m.Count - 1 }

// proto is a transport protocol by its number.
type proto uint8

const (
	tcp  proto = 6
	udp  proto = 17
	sctp proto = 132
)

// String returns the protocol's name.
func (p proto) String() string {
	switch p {
	case tcp:
		return "tcp"
	case udp:
		return "udp"
	default:
		return "sctp"
	}
}

type portMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

type rawConfig struct {
	Backend       *string  `json:"backend"`
	SNAT          *bool    `json:"snat"`
	ConditionsV4  []string `json:"conditionsV4"`
	ConditionsV6  []string `json:"conditionsV6"`
	MasqAll       bool     `json:"masqAll"`
	MarkMasqBit   *int     `json:"markMasqBit"`
	SetMarkChain  *string  `json:"externalSetMarkChain"`
	Conflict      string   `json:"hostPortConflict"`
	RuntimeConfig struct {
		// containerd writes PortMappings' keys in capitals; the decoder takes both.
		PortMappings []portMapping `json:"portMappings"`
	} `json:"runtimeConfig"`
}

const defaultMarkBit = 13 // Kubernetes uses 14 and 15, Calico 20 to 31

// parse reads the configuration.
func parse(c *plugin.Call) (config, error) {
	raw := rawConfig{}
	if err := c.Decode(&raw); err != nil {
		return config{}, err
	}
	conf := config{
		SNAT: raw.SNAT == nil || *raw.SNAT, MasqAll: raw.MasqAll, MarkBit: defaultMarkBit,
		Conditions: conditions{raw.ConditionsV4, raw.ConditionsV6},
	}
	if err := raw.checkWords(); err != nil {
		return conf, err
	}
	if raw.SetMarkChain != nil {
		conf.SetMarkChain = *raw.SetMarkChain
		if raw.MarkMasqBit != nil {
			return conf, cnierr.Config("Cannot specify externalSetMarkChain and markMasqBit")
		}
	}
	if raw.MarkMasqBit != nil {
		conf.MarkBit = *raw.MarkMasqBit
	}
	if conf.MarkBit < 0 || conf.MarkBit > 31 {
		return conf, cnierr.Config("MasqMarkBit must be between 0 and 31")
	}
	switch raw.Conflict {
	case "", "error":
	case "replace":
		conf.Replace = true
	default:
		return conf, cnierr.Config("hostPortConflict %q: want error or replace", raw.Conflict)
	}
	if err := conf.chooseBackend(raw); err != nil {
		return conf, err
	}
	var err error
	conf.Mappings, err = parseMappings(c, raw.RuntimeConfig.PortMappings)
	return conf, err
}

// checkWords refuses what cannot be written into a script of iptables-restore.
func (r *rawConfig) checkWords() error {
	err := errors.Join(iptables.CheckWords("conditionsV4", r.ConditionsV4), iptables.CheckWords("conditionsV6", r.ConditionsV6))
	if err != nil || r.SetMarkChain == nil || *r.SetMarkChain == "" {
		return err
	}
	return iptables.CheckChain("externalSetMarkChain", *r.SetMarkChain)
}

// chooseBackend settles the backend as far as the configuration says it: options
// that only one of them has speak for that one.
func (conf *config) chooseBackend(raw rawConfig) error {
	special := map[string][]string{}
	if raw.SetMarkChain != nil {
		special["iptables"] = append(special["iptables"], "externalSetMarkChain")
	}
	for _, key := range []struct {
		name string
		cond []string
	}{{"conditionsV4", raw.ConditionsV4}, {"conditionsV6", raw.ConditionsV6}} {
		if b := syntaxOf(key.cond); b != "" {
			special[b] = append(special[b], key.name)
		}
	}
	want := ""
	if raw.Backend != nil {
		want = *raw.Backend
	}
	switch {
	case want == "" && len(special["iptables"]) > 0:
		want = "iptables"
	case want == "" && len(special["nftables"]) > 0:
		want = "nftables"
	case want != "" && want != "iptables" && want != "nftables":
		return cnierr.Config("unrecognized backend %q", want)
	}
	wrong := map[string]string{"iptables": "nftables", "nftables": "iptables"}[want]
	if len(special[wrong]) > 0 {
		return cnierr.Config("%s backend was requested but configuration contains %s-specific options %v", want, wrong, special[wrong])
	}
	conf.Backend = want
	return nil
}

// syntaxOf tells whose syntax conditions are written in: those of iptables begin
// with an option or a negation.
func syntaxOf(cond []string) string {
	switch {
	case len(cond) == 0 || cond[0] == "":
		return ""
	case cond[0][0] == '-' || cond[0][0] == '!':
		return "iptables"
	default:
		return "nftables"
	}
}

func parseMappings(c *plugin.Call, raw []portMapping) ([]mapping, error) {
	var all claims
	for _, r := range raw {
		m, err := parseMapping(r)
		if err != nil {
			return nil, err
		}
		if lost := all.add(m); lost && c.Verb == plugin.Add {
			c.Note("portmap: host port %s to the container's %d: an earlier mapping has taken it", m, m.Container)
		}
	}
	return coalesce(all.list), nil
}

// claims are the mappings in the order of the configuration. Of several for the
// same packets the first wins.
type claims struct {
	list []mapping
	at   map[slot][]mapping
}

// slot is what only mappings of the same port have in common.
type slot struct {
	proto proto
	host  uint16
}

// add takes what of the mapping, a single port, no earlier one has. It reports
// whether an earlier one leads packets of it to another port.
func (c *claims) add(m mapping) (lost bool) {
	free := ""
	for i, only := range []string{"4", "6"} {
		if !m.isFor(i == 1) {
			continue
		}
		if by, taken := c.earlier(m, i == 1); taken {
			lost = lost || by.Container != m.Container
		} else {
			free += only
		}
	}
	if free == "" {
		return lost
	}
	if len(free) == 1 && !m.HostIP.IsValid() {
		m.Only = free
	}
	if c.at == nil {
		c.at = map[slot][]mapping{}
	}
	s := slot{m.Proto, m.Host}
	c.at[s] = append(c.at[s], m)
	c.list = append(c.list, m)
	return lost
}

// earlier returns the mapping that takes all packets of a family that m is for.
func (c *claims) earlier(m mapping, v6 bool) (mapping, bool) {
	for _, e := range c.at[slot{m.Proto, m.Host}] {
		if e.isFor(v6) && (!e.HostIP.IsValid() || e.HostIP == m.HostIP) {
			return e, true
		}
	}
	return mapping{}, false
}

const maxPort = 1<<16 - 1

func parseMapping(r portMapping) (mapping, error) {
	if r.ContainerPort <= 0 || r.ContainerPort > maxPort {
		return mapping{}, cnierr.Config("Invalid container port number: %d", r.ContainerPort)
	}
	if r.HostPort <= 0 || r.HostPort > maxPort {
		return mapping{}, cnierr.Config("Invalid host port number: %d", r.HostPort)
	}
	m := mapping{Host: uint16(r.HostPort), Container: uint16(r.ContainerPort), Count: 1}
	switch strings.ToLower(r.Protocol) {
	case "", "tcp":
		m.Proto = tcp
	case "udp":
		m.Proto = udp
	case "sctp":
		m.Proto = sctp
	default:
		return m, cnierr.Config("host port %d: protocol %q: want tcp, udp or sctp", r.HostPort, r.Protocol)
	}
	if r.HostIP == "" {
		return m, nil
	}
	ip, err := netip.ParseAddr(r.HostIP)
	if err != nil || ip.Zone() != "" || ip.Is4In6() {
		return m, cnierr.Config("host port %d: hostIP %q: want an address", r.HostPort, r.HostIP)
	}
	switch {
	case !ip.IsUnspecified():
		m.HostIP = ip
	case ip.Is4():
		m.Only = "4"
	default:
		m.Only = "6"
	}
	return m, nil
}

// runOf is from how many ports in a row on a range is worth more than single
// ports.
const runOf = 16

// coalesce makes ranges of ports in a row that are the same on host and container;
// nftables cannot shift a range.
func coalesce(list []mapping) []mapping {
	slices.SortStableFunc(list, compare)
	var out []mapping
	for i := 0; i < len(list); {
		n := run(list[i:])
		if n < runOf {
			out = append(out, list[i])
			i++
			continue
		}
		m := list[i]
		m.Count = uint16(n)
		out = append(out, m)
		i += n
	}
	return out
}

// run returns how many mappings from the first on make a range.
func run(list []mapping) int {
	first := list[0]
	if first.Host != first.Container || first.HostIP.IsValid() {
		return 1
	}
	n := 1
	for n < len(list) && n < maxPort {
		next := first
		next.Host, next.Container = first.Host+uint16(n), first.Container+uint16(n)
		if list[n] != next {
			break
		}
		n++
	}
	return n
}

// compare puts mappings at one address before those at any: where both are for a
// port, the former came first.
func compare(a, b mapping) int {
	if c := b.HostIP.Compare(a.HostIP); c != 0 {
		return c
	}
	if c := strings.Compare(a.Only, b.Only); c != 0 {
		return c
	}
	if a.Proto != b.Proto {
		return int(a.Proto) - int(b.Proto)
	}
	if a.Host != b.Host {
		return int(a.Host) - int(b.Host)
	}
	return int(a.Container) - int(b.Container)
}
