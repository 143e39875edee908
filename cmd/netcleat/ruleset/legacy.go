package ruleset

import (
	"net/netip"
	"slices"
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
			c.hook = h
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
	case "ACCEPT", "DNAT", "REDIRECT":
		return verdict{kind: accept}
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
