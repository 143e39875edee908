package ruleset

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/netcleat/netcleat/pkg/iptables"
)

// addLegacy adds a table of the kernel's old iptables, as iptables-save prints
// it.
func (r *Ruleset) addLegacy(v6 bool, table string, lines []string) {
	family := map[bool]string{false: "ip", true: "ip6"}[v6]
	at := map[string]*chain{}
	for _, text := range lines {
		name, rest, ok := strings.Cut(strings.TrimPrefix(text, ":"), " ")
		if !ok || !strings.HasPrefix(text, ":") {
			continue
		}
		c := &chain{table: family + " " + table, name: name, v4: !v6, v6: v6, old: true, drops: strings.HasPrefix(rest, "DROP")}
		if h := strings.ToLower(name); slices.Contains(hooks, h) {
			c.hook, c.nat, c.prio = h, table == "nat", legacyPriority[table]
		}
		at[name] = c
		r.chains = append(r.chains, c)
	}
	for _, l := range iptables.Parse(lines) {
		if c := at[l.Chain]; l.Rule && c != nil {
			c.rules = append(c.rules, legacyRule(l))
		}
	}
}

// legacyPriority is where the old tables stand at the hooks before routing.
var legacyPriority = map[string]int{"raw": -300, "mangle": -150, "nat": -100, "filter": 0}

// legacyRule reads one line.
func legacyRule(l iptables.Line) rule {
	out := rule{text: strings.TrimPrefix(l.Delete(), "-D "), comment: l.Value("--comment")}
	words := l.Words()
	inverted := false
	for i := 0; i < len(words); i++ {
		value := ""
		if i+1 < len(words) {
			value = words[i+1]
		}
		switch word := words[i]; word {
		case "!":
			inverted = true
			continue
		case "-j", "-g":
			out.verdict = legacyVerdict(word, value)
			return out
		case "-m":
		case "--comment":
		default:
			t := legacyTerm(word, value)
			if inverted {
				t = inverse(t)
			}
			out.terms = append(out.terms, t)
		}
		inverted = false
		if !strings.HasPrefix(value, "-") && value != "!" {
			i++ // a flag has no value
		}
	}
	return out
}

func inverse(t term) term { return func(p Packet) tri { return t(p).not() } }

func legacyVerdict(word, target string) verdict {
	switch target {
	case "ACCEPT":
		return verdict{kind: accept}
	case "DNAT", "REDIRECT":
		return verdict{kind: dnat}
	case "DROP", "REJECT":
		return verdict{kind: drop}
	case "MASQUERADE", "SNAT":
		return verdict{kind: masquerade}
	case "RETURN":
		return verdict{kind: back}
	}
	if word == "-g" {
		return verdict{goTo, target}
	}
	return verdict{jump, target} // what is no chain ends at once: LOG, MARK …
}

// legacyTerm knows addresses, interfaces and the state of a connection.
func legacyTerm(option, value string) term {
	switch option {
	case "-s":
		return func(p Packet) tri { return within(p.Src, value) }
	case "-d":
		return func(p Packet) tri { return within(p.Dst, value) }
	case "-i":
		return func(p Packet) tri { return named(p.In, value) }
	case "-o":
		return func(p Packet) tri { return named(p.Out, value) }
	case "-p":
		return func(p Packet) tri { return p.protocol(value) }
	case "--dport":
		return func(p Packet) tri { return p.port(value) }
	case "--dst-type":
		return func(p Packet) tri { return p.toLocal(value == "LOCAL") }
	case "--ctstate", "--state":
		states := strings.Split(value, ",")
		return func(p Packet) tri {
			if p.Answer {
				return answer(slices.Contains(states, "ESTABLISHED"))
			}
			return answer(slices.Contains(states, "NEW"))
		}
	}
	return func(Packet) tri { return maybe }
}

// protocol says whether the packet has the protocol of that name.
func (p Packet) protocol(name string) tri {
	if p.Proto == "" {
		return maybe
	}
	return answer(p.Proto == name)
}

// port says whether the packet goes to the port, or one of a range FIRST:LAST.
func (p Packet) port(text string) tri {
	first, last, ranged := strings.Cut(text, ":")
	if !ranged {
		last = first
	}
	lo, err := strconv.ParseUint(first, 10, 16)
	hi, err2 := strconv.ParseUint(last, 10, 16)
	if p.Port == 0 || err != nil || err2 != nil {
		return maybe
	}
	return answer(uint64(p.Port) >= lo && uint64(p.Port) <= hi)
}

// toLocal says whether a condition holds that is about packets to the host itself,
// or about no such.
func (p Packet) toLocal(asked bool) tri {
	if !p.Local {
		return maybe
	}
	return answer(asked)
}

func within(a netip.Addr, prefix string) tri {
	p, err := netip.ParsePrefix(prefix)
	if !a.IsValid() || err != nil {
		return maybe
	}
	return answer(p.Contains(a))
}

func named(name, pattern string) tri {
	if name == "" {
		return maybe
	}
	if start, wild := strings.CutSuffix(pattern, "+"); wild {
		return answer(strings.HasPrefix(name, start))
	}
	return answer(name == pattern)
}
