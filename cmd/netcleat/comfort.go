package main

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/docs/schema"
)

// comfort gives a command and those below it what all of them have: completion of
// what their usage names, and errors that say where help is.
func comfort(c *cobra.Command) {
	for _, sub := range c.Commands() {
		comfort(sub)
	}
	if c.ValidArgsFunction == nil && c.ValidArgs == nil && !c.HasSubCommands() {
		c.ValidArgsFunction = argument
	}
	c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) { completeFlag(c, f) })
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return helpful(c, err) })
	switch check := c.Args; {
	case check != nil:
		c.Args = func(c *cobra.Command, args []string) error { return helpful(c, check(c, args)) }
	case c.HasSubCommands() && !c.Runnable():
		c.Args = func(c *cobra.Command, args []string) error { return helpful(c, unknown(c, args)) }
		c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	}
}

// helpful says where the help to an error of usage is.
func helpful(c *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	if _, flag, ok := strings.Cut(err.Error(), "unknown flag: "); ok && flagInstead[flag] != "" {
		return fmt.Errorf("%w: %s", err, flagInstead[flag])
	}
	return fmt.Errorf("%w (%s --help tells how)", err, c.CommandPath())
}

// instead says what to type for commands that people know from Docker or podman.
var instead = map[string]string{
	"attach":     "use netcleat network connect",
	"detach":     "use netcleat network disconnect",
	"delete":     "use rm",
	"exec":       "netcleat does not run commands in containers: use nerdctl exec, podman exec or nsenter --net=PATH",
	"run":        "netcleat does not start containers: use nerdctl run --net NETWORK, or podman run --network NETWORK",
	"start":      "netcleat does not start containers: use their runtime",
	"stop":       "netcleat does not stop containers: use their runtime",
	"port":       "netcleat ls shows published ports",
	"info":       "use netcleat status",
	"uninstall":  "use netcleat install --restore DIR",
	"reload":     "use netcleat reconcile",
	"containers": "use netcleat ls",
	"inspect":    "use netcleat network inspect NETWORK, or netcleat explain CONTAINER",
	"networks":   "use netcleat network ls",
	"create":     "use netcleat network create",
	"connect":    "use netcleat network connect",
	"disconnect": "use netcleat network disconnect",
	"prune":      "use netcleat network prune, or netcleat gc",
}

// flagInstead is the same for flags of docker network create.
var flagInstead = map[string]string{
	"--attachable":  "leave it out: containers can always be connected",
	"--scope":       "leave it out: networks are this host's",
	"--ingress":     "it belongs to Docker's swarm",
	"--config-from": "it belongs to Docker's swarm",
	"--config-only": "it belongs to Docker's swarm",
	"--ipam-opt":    "use -o",
	"--disable-dns": "use --no-dns",
	"--alias":       "netcleat network connect has it",
	"--link":        "containers of a bridge network find each other by name",
}

// unknown is the error for a command that there is not, or nil.
func unknown(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if hint := instead[args[0]]; hint != "" {
		return fmt.Errorf("command %q: %s", args[0], hint)
	}
	c.SuggestionsMinimumDistance = cmp.Or(c.SuggestionsMinimumDistance, 2)
	meant := c.SuggestionsFor(args[0])
	if len(meant) == 0 {
		return fmt.Errorf("command %q: %s has none of that name", args[0], c.CommandPath())
	}
	return fmt.Errorf("command %q: %s has none of that name; did you mean %q?", args[0], c.CommandPath(), meant[0])
}

// complete are the arguments that can be completed, by how a usage calls them.
var complete = map[string]cobra.CompletionFunc{
	"NETWORK":   networks,
	"CONTAINER": containers,
	"NETNS":     paths,
	"PLUGIN":    plugins,
	"FILE":      paths,
	"DIR":       directories,
}

var (
	argumentName  = regexp.MustCompile(`[A-Z]+`)
	flagsInParens = regexp.MustCompile(`\([^)]*\)|\[-[^\]]*\]`)
)

// arguments returns what a usage calls a command's arguments, flags left out.
func arguments(c *cobra.Command) []string {
	words := strings.Fields(flagsInParens.ReplaceAllString(c.Use, ""))[1:]
	return slices.DeleteFunc(words, func(w string) bool { return !argumentName.MatchString(w) })
}

// argument completes an argument by the name that the usage gives it: "inspect
// NETWORK", "explain CONTAINER|NETNS", "lint FILE|DIR…".
func argument(c *cobra.Command, args []string, begun string) (all []string, directive cobra.ShellCompDirective) {
	named := arguments(c)
	if len(named) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	last := named[len(named)-1]
	if len(args) < len(named) {
		last = named[len(args)]
	} else if !strings.Contains(last, "…") {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	directive = cobra.ShellCompDirectiveNoFileComp
	for _, name := range argumentName.FindAllString(last, -1) {
		if f := complete[name]; f != nil {
			some, d := f(c, args, begun)
			all = append(all, some...)
			if d == cobra.ShellCompDirectiveDefault || directive == cobra.ShellCompDirectiveNoFileComp {
				directive = d
			}
		}
	}
	return beginning(all, begun), directive
}

// beginning leaves those that go on from what was typed.
func beginning(all []string, begun string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return !strings.HasPrefix(s, begun) })
}

var words = regexp.MustCompile(`^[a-z0-9-]+(, [a-z0-9-]+)*( or [a-z0-9-]+)?$`)

// completeFlag completes a flag's value: one of the words that its usage lists
// ("text or json"), a directory, or a network.
func completeFlag(c *cobra.Command, f *pflag.Flag) {
	var fn cobra.CompletionFunc
	switch {
	case f.Value.Type() != "string":
		return
	case words.MatchString(f.Usage) && strings.ContainsAny(f.Usage, " "):
		fn = cobra.FixedCompletions(strings.Split(strings.ReplaceAll(f.Usage, " or ", ", "), ", "), cobra.ShellCompDirectiveNoFileComp)
	case f.Name == "network":
		fn = networks
	case f.Name == "conf-dir" || f.Name == "cni-path":
		fn = directories
	default:
		return
	}
	if _, taken := c.GetFlagCompletionFunc(f.Name); !taken {
		// It is the command's own flag, and has none yet.
		_ = c.RegisterFlagCompletionFunc(f.Name, func(c *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			all, directive := fn(c, args, begun)
			return beginning(all, begun), directive
		})
	}
}

// places are where a command looks for networks: its --conf-dir counts.
func places(c *cobra.Command) show.Places {
	p := show.Defaults()
	if f := c.Flags().Lookup("conf-dir"); f != nil {
		p.NetConf = f.Value.String()
	}
	return p
}

func networks(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	names, _ := show.Names(places(c)) // what cannot be read is not offered
	return names, cobra.ShellCompDirectiveNoFileComp
}

func containers(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	names, _ := show.Containers(places(c)) // as above
	return names, cobra.ShellCompDirectiveNoFileComp
}

func plugins(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return schema.Names(), cobra.ShellCompDirectiveNoFileComp
}

func paths(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}

func directories(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// unquote takes the backquotes out of the usage of all flags.
func unquote(c *cobra.Command) {
	for _, sub := range c.Commands() {
		unquote(sub)
	}
	c.LocalFlags().VisitAll(func(f *pflag.Flag) { f.Usage = strings.ReplaceAll(f.Usage, "`", "") })
}

// textOrJSON returns an error for any other output.
func textOrJSON(format string) error {
	if format != "text" && format != "json" {
		return fmt.Errorf("output %q: want text or json", format)
	}
	return nil
}
