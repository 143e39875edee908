package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/dnsd"
	"github.com/netcleat/netcleat/pkg/journal"
	"github.com/netcleat/netcleat/plugins/dnsname"
)

func dnsCommand() *cobra.Command {
	c := &cobra.Command{Use: "dns", Short: "Answer the names of containers", Args: cobra.NoArgs}
	c.AddCommand(dnsDaemonCommand(), dnsStartCommand(), dnsStatusCommand())
	return c
}

func dnsDaemonCommand() *cobra.Command {
	o := dnsd.Options{Journal: journal.Default, Cgroups: "/proc/self/mountinfo"}
	c := &cobra.Command{
		Use:   "daemon",
		Short: "Run the server of the dnsname plugin",
		Long: `Run the server of the dnsname plugin. It listens on port 53 at the address that the host has on
each network with names. The plugin starts it when it is needed, with systemd where the units of
docs/systemd are installed.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return dnsd.Run(c.Context(), o) },
	}
	c.Flags().StringVar((*string)(&o.Journal), "journal", string(journal.Default), "the plugins' records")
	c.Flags().BoolVar(&o.OnDemand, "on-demand", false, "started by the plugin, with the socket as descriptor 3")
	_ = c.Flags().MarkHidden("journal")   // the flag is there
	_ = c.Flags().MarkHidden("on-demand") // so is this one
	return c
}

func dnsStartCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "start",
		Short: "Start the server of the dnsname plugin if it does not run",
		Long: `Start the server of the dnsname plugin if it does not run, as the plugin does: after the server
was killed on a host without systemd's units, names are back at once.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := dnsname.Start(c.Context(), journal.Default); err != nil {
				return err
			}
			_, err := dnsname.Ask(c.Context(), journal.Default, "reload") // it answers when names are answered
			return err
		},
	}
}

func dnsStatusCommand() *cobra.Command {
	output := ""
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the names of containers and what the server answered",
		Long: `Show the networks with names, what each name is answered with, the server's counters since its
start, and the servers that other names are forwarded to.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			text, err := dnsname.Ask(c.Context(), journal.Default, "status")
			switch {
			case errors.Is(err, dnsname.ErrNoDaemon):
				return fmt.Errorf("%w (netcleat dns start starts it)", err)
			case err != nil:
				return err
			case output == "json":
				_, err := io.WriteString(c.OutOrStdout(), text)
				return err
			case output != "text":
				return fmt.Errorf("output %q: want text or json", output)
			}
			st, err := dnsd.ReadStatus(text)
			if err != nil {
				return err
			}
			return printNames(c.OutOrStdout(), st)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return c
}

func printNames(out io.Writer, st dnsd.Status) error {
	var b strings.Builder
	fmt.Fprintf(&b, "queries %d: answered %d, forwarded %d (failed %d), refused %d, dropped %d\n", st.Queries, st.Answered, st.Forwarded, st.Failed, st.Refused, st.Dropped)
	for _, u := range st.Upstreams {
		fmt.Fprintf(&b, "upstream %s: failures %d\n", u.Address, u.Failures)
	}
	for _, n := range st.Networks {
		fmt.Fprintf(&b, "network %s", n.Name)
		for _, g := range n.Gateways {
			fmt.Fprintf(&b, " %s", g.Address)
			if g.Problem != "" {
				fmt.Fprintf(&b, " (does not answer: %s)", g.Problem)
			}
		}
		for _, h := range n.Remote {
			fmt.Fprintf(&b, " (and %d containers of host %s)", h.Containers, h.Name)
		}
		b.WriteByte('\n')
		for _, name := range n.Names {
			fmt.Fprintf(&b, "  %s %s\n", name.Name, spaced(name.Addresses))
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func spaced(addrs []netip.Addr) string {
	all := make([]string, 0, len(addrs))
	for _, a := range addrs {
		all = append(all, a.String())
	}
	return strings.Join(all, " ")
}
