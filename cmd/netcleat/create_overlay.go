package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/netcleat/netcleat/cmd/netcleat/clusterd"
	"github.com/netcleat/netcleat/cmd/netcleat/create"
	"github.com/netcleat/netcleat/cmd/netcleat/overlay"
	"github.com/netcleat/netcleat/cmd/netcleat/socket"
)

// overlayDriver is Docker's name of networks across hosts.
const overlayDriver = "overlay"

// mtuOption is Docker's.
const mtuOption = "com.docker.network.driver.mtu"

// createOverlay makes a network on all hosts.
func createOverlay(c *cobra.Command, f create.Flags) error {
	d, err := defineOverlay(c.Context(), f)
	if err == nil {
		fmt.Fprintln(c.OutOrStdout(), d.Name)
	}
	return err
}

// defineOverlay has the cluster make a network on all hosts.
func defineOverlay(ctx context.Context, f create.Flags) (d overlay.Definition, err error) {
	if d, err = definition(f); err != nil {
		return d, err
	}
	s, err := clusterd.ReadSettings(clusterd.DefaultSettings)
	if err != nil {
		return d, fmt.Errorf("driver overlay: needs etcd and `netcleat cluster daemon` on each host (docs/overlay.md): %w", err)
	}
	if d, err = clusterd.Define(ctx, s, d); err != nil || s.NetworkDir == "" {
		return d, err
	}
	// The daemon of this host makes it soon; who lists networks next is to find it.
	err = awaitFile(ctx, create.File(s.NetworkDir, d.Name), nil)
	if err != nil {
		err = fmt.Errorf("network %s: is in the cluster, but not on this host: %w (the log of the cluster daemon says why)", d.Name, err)
	}
	return d, err
}

// definition is what the flags ask for.
func definition(f create.Flags) (d overlay.Definition, err error) {
	d = overlay.Definition{Name: f.Name, Internal: f.Internal, Names: f.Names != create.Without}
	switch {
	case len(f.Subnets) == 0:
		return d, errors.New("driver overlay: --subnet is missing: hosts cannot choose one for each other")
	case len(f.Ranges) > 0 || len(f.Aux) > 0 || f.Parent != "" || len(f.Labels) > 0:
		return d, errors.New("driver overlay: takes no --ip-range, --aux-address, --parent and --label")
	case f.IPAM != "host-local" && f.IPAM != "cluster-local": // the flag's default is the former
		return d, fmt.Errorf("driver overlay: addresses are those of cluster-local, not of %s", f.IPAM)
	}
	for _, o := range f.Options {
		key, value, _ := strings.Cut(o, "=")
		if key != mtuOption && key != "mtu" {
			return d, fmt.Errorf("option %s: driver overlay takes only %s", key, mtuOption)
		}
		if d.MTU, err = strconv.Atoi(value); err != nil {
			return d, fmt.Errorf("option %s=%s: want a number", key, value)
		}
	}
	for _, text := range f.Subnets {
		s, err := netip.ParsePrefix(text)
		if err != nil || s.Masked() != s {
			return d, fmt.Errorf("subnet %q: want an address without host bits and a prefix length, such as 10.100.0.0/16", text)
		}
		d.Subnets, d.Gateways = append(d.Subnets, s), append(d.Gateways, s.Addr().Next())
	}
	for _, text := range f.Gateways {
		if err := setGateway(&d, text); err != nil {
			return d, err
		}
	}
	probe := d
	probe.VNI = 1 << 20 // which the cluster chooses
	return d, probe.Check()
}

// setGateway replaces the gateway of the subnet that the address is of.
func setGateway(d *overlay.Definition, text string) error {
	g, err := netip.ParseAddr(text)
	if err != nil {
		return fmt.Errorf("gateway %q: want an IP address", text)
	}
	i := slices.IndexFunc(d.Subnets, func(s netip.Prefix) bool { return s.Contains(g) })
	if i < 0 {
		return fmt.Errorf("gateway %s: in no --subnet", g)
	}
	d.Gateways[i] = g
	return nil
}

// undefineOverlay has the cluster remove a network.
func undefineOverlay(ctx context.Context, dir, name string) error {
	s, err := clusterd.ReadSettings(clusterd.DefaultSettings)
	if err != nil {
		return fmt.Errorf("network %s: is the cluster's: %w", name, err)
	}
	if err := clusterd.Undefine(ctx, s, name); err != nil {
		return err
	}
	if err := awaitFile(ctx, create.File(dir, name), fs.ErrNotExist); err != nil {
		return fmt.Errorf("network %s: is removed from the cluster, but still on this host: %w (the log of the cluster daemon says why)", name, err)
	}
	return nil
}

// awaitFile waits until looking for a file returns want: nil once the daemon has written
// it, fs.ErrNotExist once it has removed it.
func awaitFile(ctx context.Context, path string, want error) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		_, err := os.Stat(path)
		if errors.Is(err, want) {
			return nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := socket.Pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}
