package iptables

import (
	"context"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/pkg/gate"
)

// Line is one rule or chain of iptables-save's output.
type Line struct {
	Chain string
	Rule  bool // a rule; else the declaration of the chain
	words []string
	text  string
}

// Parse reads what iptables-save prints of one table.
func Parse(lines []string) (all []Line) {
	for _, text := range lines {
		switch {
		case strings.HasPrefix(text, ":"):
			name, _, _ := strings.Cut(text[1:], " ")
			all = append(all, Line{Chain: name})
		case strings.HasPrefix(text, "-A "):
			if w := split(text); len(w) > 1 {
				all = append(all, Line{Chain: w[1], Rule: true, words: w[2:], text: strings.TrimPrefix(text, "-A ")})
			}
		}
	}
	return all
}

// split takes a line apart at blanks, honouring quotes.
func split(s string) (words []string) {
	var word strings.Builder
	quoted, any := false, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			quoted, any = !quoted, true
		case c == '\\' && quoted && i+1 < len(s):
			i++
			word.WriteByte(s[i])
		case c == ' ' && !quoted:
			if any || word.Len() > 0 {
				words = append(words, word.String())
			}
			word.Reset()
			any = false
		default:
			word.WriteByte(c)
		}
	}
	if any || word.Len() > 0 {
		words = append(words, word.String())
	}
	return words
}

// Value returns the word after the option, or "".
func (l Line) Value(option string) string {
	for i, w := range l.words {
		if w == option && i+1 < len(l.words) {
			return l.words[i+1]
		}
	}
	return ""
}

// Has reports whether the option has the value and is not negated.
func (l Line) Has(option, value string) bool {
	for i, w := range l.words {
		if w == option && i+1 < len(l.words) && l.words[i+1] == value && (i == 0 || l.words[i-1] != "!") {
			return true
		}
	}
	return false
}

// Words are the rule's words after its chain.
func (l Line) Words() []string { return l.words }

// Delete is the line of a script that deletes the rule.
func (l Line) Delete() string { return "-D " + l.text }

// DropChain returns the lines of a script that delete the chain with what jumps
// to it, but for the jumps to keep; then the chain stays as well.
func DropChain(all []Line, chain string, keep func(Line) bool) (script []string) {
	kept := false
	for _, l := range all {
		switch {
		case !l.Rule || l.Value("-j") != chain && l.Value("-g") != chain:
		case keep != nil && keep(l):
			kept = true
		default:
			script = append(script, l.Delete())
		}
	}
	if !kept && HasChain(all, chain) {
		script = append(script, "-F "+chain, "-X "+chain)
	}
	return script
}

// HasChain reports whether the table has the chain.
func HasChain(all []Line, chain string) bool {
	return slices.ContainsFunc(all, func(l Line) bool { return !l.Rule && l.Chain == chain })
}

// Change reads a table and makes the changes that change says, as lines of a
// script.
func (t Tool) Change(ctx context.Context, g gate.Gate, table string, change func([]Line) []string) error {
	saved, err := t.Save(ctx, table)
	if err != nil {
		return err
	}
	script := change(Parse(saved))
	if len(script) == 0 {
		return nil
	}
	return t.Restore(ctx, g, "change table "+table, "*"+table+"\n"+strings.Join(script, "\n")+"\nCOMMIT\n")
}
