package e2e

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// examples runs the examples in the help of a command, each as a user types it;
// each has to succeed. Without a command it checks that the story has run those
// of all commands.
func (s *suite) examples(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg, "examples [command]")
	if len(args) == 0 {
		ran := strings.Split(ts.Getenv("EXAMPLES"), ",")
		for _, c := range s.commands(ts, nil) {
			if len(section(s.help(ts, c), "Examples:")) > 0 && !slices.Contains(ran, strings.Join(c, " ")) {
				ts.Fatalf("no story runs the examples of netcleat %s", strings.Join(c, " "))
			}
		}
		return
	}
	lines := section(s.help(ts, args), "Examples:")
	if len(lines) == 0 {
		ts.Fatalf("the help of netcleat %s has no examples", strings.Join(args, " "))
	}
	path := "PATH=" + filepath.Dir(s.netcleat) + ":" + ts.MkAbs("bin") + ":" + ts.Getenv("PATH")
	var all []byte
	for _, line := range lines {
		out, err := inHost(ts, nil, []string{path}, "bash", "-euo", "pipefail", "-c", line)
		if err != nil {
			ts.Fatalf("%s: %v\n%s", line, err, out)
		}
		all = append(append(all, "$ "+line+"\n"...), out...)
	}
	judge(ts, false, all, nil)
	ts.Setenv("EXAMPLES", ts.Getenv("EXAMPLES")+","+strings.Join(args, " "))
}

func (s *suite) help(ts *testscript.TestScript, command []string) string {
	out, err := inHost(ts, nil, nil, append(append([]string{s.netcleat}, command...), "--help")...)
	ts.Check(err)
	return string(out)
}

// commands returns a command and all below it.
func (s *suite) commands(ts *testscript.TestScript, command []string) [][]string {
	all := [][]string{command}
	for _, line := range section(s.help(ts, command), "Available Commands:") {
		if name, _, _ := strings.Cut(line, " "); name != "help" && name != "completion" && name != "daemon" { // daemon's help is of another form
			all = append(all, s.commands(ts, append(slices.Clone(command), name))...)
		}
	}
	return all
}

// section returns the lines of a section of a help.
func section(help, head string) (lines []string) {
	_, rest, found := strings.Cut(help, head+"\n")
	if !found {
		return nil
	}
	for line := range strings.Lines(rest) {
		if strings.TrimSpace(line) == "" {
			break
		}
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}
