package connect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/containernetworking/cni/libcni"

	"github.com/netcleat/netcleat/cmd/netcleat/attached"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/netns"
)

// Forget ends the connections of containers that are provably gone and of which
// the plugins have no record, as after a boot: the library remembers them for
// ever, since no runtime will detach them.
func Forget(ctx context.Context, o Options, w io.Writer) error {
	rows, err := show.Rows(o.Places)
	errs := []error{err}
	held := sync.OnceValues(func() (map[uint64]bool, error) { return netns.Held("/proc") })
	for _, r := range rows {
		if _, _, ours := attached.Connected(r.Container); !ours || r.Recorded {
			continue
		}
		v := judge(r, held)
		switch v.State {
		case attached.Alive:
			continue
		case attached.Unproven:
			fmt.Fprintf(w, "left %s: not provably gone: %s\n", name(r), v.Why)
			continue
		}
		if err := o.forget(ctx, r); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name(r), err))
			continue
		}
		fmt.Fprintf(w, "%s %s: %s\n", map[bool]string{false: "forgot", true: "would forget"}[o.DryRun], name(r), v.Why)
	}
	return errors.Join(errs...)
}

// judge says by the container's ID alone whether its namespace exists.
func judge(r show.Row, held func() (map[uint64]bool, error)) attached.Verdict {
	was, thisBoot, _ := attached.Connected(r.Container)
	if !thisBoot {
		return attached.Verdict{State: attached.Gone, Why: "it was connected in another boot"}
	}
	if ns, err := netns.Open(r.Netns); err == nil {
		err = ns.Cookie()
		_ = ns.Close() // was only looked at
		switch {
		case err == nil && attached.ConnectID(ns.ID) == r.Container:
			return attached.Verdict{State: attached.Alive, Why: r.Netns}
		case err == nil && ns.ID.Ino == was.Ino:
			return attached.Verdict{State: attached.Gone, Why: r.Netns + " is a later namespace with the number of the sandbox's"}
		}
	}
	all, err := held()
	switch {
	case err != nil:
		return attached.Verdict{State: attached.Unproven, Why: err.Error()}
	case all[was.Ino]:
		return attached.Verdict{State: attached.Unproven, Why: fmt.Sprintf("something holds net:[%d]", was.Ino)}
	}
	return attached.Verdict{State: attached.Gone, Why: fmt.Sprintf("nothing holds the namespace net:[%d]", was.Ino)}
}

func name(r show.Row) string { return r.Network + " " + r.Container + " " + r.Interface }

// Buried has the library forget an attachment that the plugins have been called
// to remove, if it was connected here.
func Buried(ctx context.Context, o Options, a attached.Attachment) error {
	if _, _, ours := attached.Connected(a.ContainerID); !ours {
		return nil
	}
	return o.forget(ctx, show.Row{Network: a.Network, Container: a.ContainerID, Interface: a.IfName})
}

// forget calls the plugins' DEL for a container that is gone, and has the library
// forget it. What the library does not remember is forgotten.
func (o Options) forget(ctx context.Context, r show.Row) error {
	rt := &libcni.RuntimeConf{ContainerID: r.Container, IfName: r.Interface}
	conf, rt, err := o.library().GetNetworkListCachedConfig(&libcni.NetworkConfigList{Name: r.Network}, rt)
	if err != nil || conf == nil || o.DryRun {
		return err
	}
	list, err := libcni.NetworkConfFromBytes(conf)
	if err != nil {
		return err
	}
	if err := o.installed(list); err != nil {
		return err
	}
	return o.library().DelNetworkList(ctx, list, rt)
}
