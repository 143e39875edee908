package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/graph"
	"github.com/netcleat/netcleat/docs/schema"
)

// run runs the command and returns what it prints on standard output.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out, stderr bytes.Buffer
	c := root()
	c.SetOut(&out)
	c.SetErr(&stderr)
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

// all returns the commands that people see, cobra's own left out.
func all(c *cobra.Command) (list []*cobra.Command) {
	for _, sub := range c.Commands() {
		if sub.Name() != "help" && sub.Name() != "completion" {
			list = append(append(list, sub), all(sub)...)
		}
	}
	return list
}

// Each command says what it does and how, and its examples are calls of it.
func TestCommandsExplainThemselves(t *testing.T) {
	list := all(root())
	if len(list) < 14 {
		t.Fatalf("found %d commands", len(list))
	}
	for _, c := range list {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: Short %q: want one sentence without its dot", c.CommandPath(), c.Short)
		}
		if !c.HasSubCommands() && c.Long == "" && c.Example == "" {
			t.Errorf("%s: neither Long nor Example", c.CommandPath())
		}
		for line := range strings.Lines(c.Example) {
			if !strings.HasPrefix(line, "  ") || !strings.Contains(line, c.CommandPath()) {
				t.Errorf("%s: example %q: want two spaces and a call of it", c.CommandPath(), line)
			}
		}
	}
}

// There is a page of the manual for each of them, whose month does not depend on the
// time zone.
func TestManual(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1701385200") // 30 November 2023, 23:00 UTC
	local := time.Local
	time.Local = time.FixedZone("Tokyo", 9*60*60)
	defer func() { time.Local = local }()
	dir := filepath.Join(t.TempDir(), "man")
	if _, err := run(t, "man", dir); err != nil {
		t.Fatal(err)
	}
	for _, c := range all(root()) {
		path := filepath.Join(dir, strings.ReplaceAll(c.CommandPath(), " ", "-")+".8")
		b, err := os.ReadFile(path)
		if c.Hidden && os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{`"Nov 2023"`, ".SH NAME\n", ".SH SYNOPSIS\n"} {
			if !strings.Contains(string(b), want) {
				t.Errorf("%s: no %s", filepath.Base(path), want)
			}
		}
	}
}

// The value of flags and arguments is completed where it is known.
func TestCompletion(t *testing.T) {
	dir := t.TempDir()
	conf := `{"cniVersion":"1.1.0","name":"%","plugins":[{"type":"bridge"}]}`
	for _, name := range []string{"blue", "green"} {
		if err := os.WriteFile(filepath.Join(dir, name+".conflist"), []byte(strings.ReplaceAll(conf, "%", name)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const nothing, files, dirs = ":4", ":0", ":16"
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"graph", "--conf-dir", dir, ""}, []string{"blue", "green", nothing}},
		{[]string{"graph", "--conf-dir", dir, "gr"}, []string{"green", nothing}},
		{[]string{"graph", "--conf-dir", dir, "blue", ""}, []string{nothing}},
		{[]string{"graph", "--format", ""}, append(slices.Clone(graph.Formats), nothing)},
		{[]string{"graph", "--conf-dir", ""}, []string{dirs}},
		{[]string{"network", "inspect", "--conf-dir", dir, "b"}, []string{"blue", nothing}},
		{[]string{"network", "ls", "-o", ""}, []string{"table", "wide", "json", nothing}},
		{[]string{"ls", "-o", "j"}, []string{"json", nothing}},
		{[]string{"lint", "-o", ""}, []string{"text", "json", nothing}},
		{[]string{"lint", ""}, []string{files}},
		{[]string{"lint", "a", ""}, []string{files}},
		{[]string{"schema", "host-"}, []string{"host-device", "host-local", nothing}},
		{[]string{"schema", ""}, append(schema.Names(), nothing)},
		{[]string{"install", ""}, []string{dirs}},
		{[]string{"gc", ""}, []string{nothing}},
		{[]string{"forget", "--conf-dir", dir, "b"}, []string{"blue", nothing}},
		{[]string{"gc", "--cni-path", ""}, []string{dirs}},
		{[]string{"doctor", ""}, []string{nothing}},
	} {
		out, err := run(t, append([]string{"__complete"}, c.args...)...)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Fields(out)
		if want := c.want; len(want) == 1 && (want[0] == files || want[0] == dirs) {
			got = got[len(got)-1:] // what the shell finds itself
		}
		if !slices.Contains(got, c.want[len(c.want)-1]) || !slices.Equal(names(c.want), names(got)) {
			t.Errorf("%q: %s", c.args, cmp.Diff(c.want, got))
		}
	}
}

// names leaves out what tells the shell how to go on.
func names(words []string) []string {
	return slices.DeleteFunc(slices.Clone(words), func(w string) bool { return strings.HasPrefix(w, ":") })
}

// What argument and completeFlag go by is there: each argument that a usage names
// is known to them, and each flag that takes one of some words lists these.
func TestUsageNamesAreKnown(t *testing.T) {
	for _, c := range all(root()) {
		for _, named := range arguments(c) {
			for _, word := range argumentName.FindAllString(named, -1) {
				if complete[word] == nil && word != "NAME" && word != "HOST" { // only the user knows a new network's name; hosts are in etcd
					t.Errorf("%s: %s cannot be completed", c.CommandPath(), word)
				}
			}
		}
		for _, flag := range []string{"output", "format"} {
			f := c.Flags().Lookup(flag)
			if f == nil || f.Value.Type() != "string" || strings.Contains(f.Usage, "`TEMPLATE`") {
				continue
			}
			if _, ok := c.GetFlagCompletionFunc(flag); !ok {
				t.Errorf("%s --%s: usage %q does not list its words", c.CommandPath(), flag, f.Usage)
			}
		}
	}
}

// The shells can read what is made for them.
func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script, err := run(t, "completion", shell)
		if err != nil || !strings.Contains(script, "__complete") {
			t.Errorf("%s: %v", shell, err)
		}
		path, err := exec.LookPath(shell)
		if err != nil {
			if shell == "bash" {
				t.Fatal(err)
			}
			continue // its script is cobra's, and needs no shell to be looked at
		}
		cmd := exec.CommandContext(t.Context(), path, "-n")
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", shell, err, out)
		}
	}
}

// Errors of usage say what to do next.
func TestErrorsOfUsage(t *testing.T) {
	for args, want := range map[string]string{
		"lnit":                               `command "lnit": netcleat has none of that name; did you mean "lint"? (netcleat --help tells how)`,
		"nothing":                            `command "nothing": netcleat has none of that name (netcleat --help tells how)`,
		"network inspct":                     `command "inspct": netcleat network has none of that name; did you mean "inspect"? (netcleat network --help tells how)`,
		"lint --strickt":                     `unknown flag: --strickt (netcleat lint --help tells how)`,
		"explain":                            `accepts 1 arg(s), received 0 (netcleat explain --help tells how)`,
		"network inspect":                    `requires at least 1 arg(s), only received 0 (netcleat network inspect --help tells how)`,
		"run":                                `command "run": netcleat does not start containers: use nerdctl run --net NETWORK, or podman run --network NETWORK (netcleat --help tells how)`,
		"network attach":                     `command "attach": use netcleat network connect (netcleat network --help tells how)`,
		"network create --attachable x":      `unknown flag: --attachable: leave it out: containers can always be connected`,
		"network connect db":                 `want a CONTAINER, --netns or --pid (netcleat network connect --help tells how)`,
		"network connect db web --pid 7":     `want one of CONTAINER, --netns and --pid (netcleat network connect --help tells how)`,
		"network create --dry-run -d host x": `driver "host": a container shares the host's network by --net host, which needs no network of its own`,
		"schema brigde":                      `schema "brigde": there is none; there are: ` + strings.Join(schema.Names(), ", "),
		"ls -o yaml":                         `output "yaml": want table, wide or json`,
	} {
		_, err := run(t, strings.Fields(args)...)
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v\nwant %s", args, err, want)
		}
	}
	if out, err := run(t, "--version"); err != nil || !strings.HasPrefix(out, "netcleat v") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := run(t, "__complete", "network", "create", "--sub"); err != nil || strings.Contains(out, "`") || !strings.Contains(out, "--subnet") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := run(t, "network"); err != nil || !strings.Contains(out, "netcleat network ls") && !strings.Contains(out, "Available Commands:") {
		t.Errorf("%v\n%s", err, out)
	}
}
