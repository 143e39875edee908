package iptables

import (
	"context"
	"errors"
	"io/fs"
	"os/exec"
	"slices"
	"strings"

	"github.com/netcleat/netcleat/pkg/look"
)

// Rule is a rule that is to be in a table.
type Rule struct {
	Chain string
	Spec  string // its words, as iptables-restore takes them
	First bool   // it goes to the beginning of its chain
}

// Add is the line of a script that adds the rule.
func (r Rule) Add() string {
	if r.First {
		return "-I " + r.Chain + " 1 " + r.Spec
	}
	return "-A " + r.Chain + " " + r.Spec
}

// Check is the line of a script that fails where the rule is not there.
func (r Rule) Check() string { return "-C " + r.Chain + " " + r.Spec }

// Adds are the lines that add rules.
func Adds(rules []Rule) (lines []string) {
	for _, r := range rules {
		lines = append(lines, r.Add())
	}
	return lines
}

// Checks are the lines that check rules.
func Checks(rules []Rule) (lines []string) {
	for _, r := range rules {
		lines = append(lines, r.Check())
	}
	return lines
}

// Script is what Restore takes of the lines for one table.
func Script(table string, lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return "*" + table + "\n" + strings.Join(lines, "\n") + "\nCOMMIT\n"
}

// Holds reports whether nothing of a script of Checks fails: iptables itself compares
// each rule, the whole of it. Where the tool is not installed there are no rules.
func (t Tool) Holds(ctx context.Context, script string) (bool, error) {
	if t.reads(ctx, script) {
		return true, nil
	}
	_, err := t.run(ctx, t.program("restore"), script, "--noflush", "-w", wait)
	if errors.Is(err, fs.ErrNotExist) || Rejected(err) {
		return false, nil
	}
	return err == nil, err
}

// reads reports whether who shares a look (package look) has read each rule that a script of
// Checks checks. Where not, iptables itself has to say.
func (t Tool) reads(ctx context.Context, script string) bool {
	shared, table := look.Of(ctx), ""
	if shared == nil {
		return false
	}
	for text := range strings.Lines(script) {
		text = strings.TrimSuffix(text, "\n")
		switch {
		case strings.HasPrefix(text, "*"):
			table = text[1:]
		case strings.HasPrefix(text, "-C "):
			saved, err := look.Once(shared, savedAs{t, table}, func() (map[string]bool, error) { return t.saved(ctx, table) })
			if err != nil || !saved[canonical(split(text)[1:])] {
				return false
			}
		}
	}
	return true
}

type savedAs struct {
	tool  Tool
	table string
}

// saved returns the rules of a table, each in the form of canonical.
func (t Tool) saved(ctx context.Context, table string) (map[string]bool, error) {
	lines, err := t.Save(ctx, table)
	all := map[string]bool{}
	for _, l := range Parse(lines) {
		if l.Rule {
			all[canonical(append([]string{l.Chain}, l.words...))] = true
		}
	}
	return all, err
}

// canonical is one text for all orders of a rule's words, of which the first is its chain.
func canonical(words []string) string {
	slices.Sort(words[1:])
	return strings.Join(words, "\x00")
}

// Rejected reports whether an error says that a script does not fit what is there: a
// rule that it checks is missing, or a chain that it makes exists. Nothing of it was
// done.
func Rejected(err error) bool {
	exit := (*exec.ExitError)(nil)
	return errors.As(err, &exit) && (exit.ExitCode() == 1 || exit.ExitCode() == 2)
}

// Restored returns the lines of a script that makes rules of a table again where they
// are missing or were changed. What is left of them goes: lines that are none of the
// rules, and of which old says so.
func (t Tool) Restored(ctx context.Context, table string, rules []Rule, old func(Line) bool) (script []string, err error) {
	if len(rules) == 0 {
		return nil, nil
	}
	if held, err := t.Holds(ctx, Script(table, Checks(rules))); held || err != nil {
		return nil, err
	}
	saved, err := t.Save(ctx, table)
	return restored(Parse(saved), rules, old), err
}

func restored(have []Line, rules []Rule, old func(Line) bool) (script []string) {
	is := func(l Line) bool { return slices.ContainsFunc(rules, l.Is) }
	missing := slices.DeleteFunc(slices.Clone(rules), func(r Rule) bool {
		return slices.ContainsFunc(have, func(l Line) bool { return l.Is(r) })
	})
	goes := func(l Line) bool { return old(l) && !is(l) }
	if len(missing) == 0 { // the text hides what is wrong
		missing, goes = rules, func(l Line) bool { return old(l) || is(l) }
	}
	for _, l := range have {
		if l.Rule && goes(l) {
			script = append(script, l.Delete())
		}
	}
	return append(script, Adds(missing)...)
}

// Is reports whether the line has the words of the rule, in whatever order.
func (l Line) Is(r Rule) bool {
	have, want := slices.Clone(l.words), split(r.Spec)
	slices.Sort(have)
	slices.Sort(want)
	return l.Rule && l.Chain == r.Chain && slices.Equal(have, want)
}

// Does reports whether the line is the rule but for its comment, which names who has
// written it for all that share a chain.
func (l Line) Does(r Rule) bool {
	uncommented := func(words []string) []string {
		words = slices.Clone(words)
		if i := slices.Index(words, "--comment"); i > 1 && i+1 < len(words) {
			words = slices.Delete(words, i-2, i+2) // with -m comment
		}
		return words
	}
	have, want := uncommented(l.words), uncommented(split(r.Spec))
	slices.Sort(have)
	slices.Sort(want)
	return l.Rule && l.Chain == r.Chain && slices.Equal(have, want)
}
