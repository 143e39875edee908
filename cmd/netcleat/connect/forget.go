package connect

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containernetworking/cni/libcni"

	"github.com/netcleat/netcleat/cmd/netcleat/attached"
	"github.com/netcleat/netcleat/cmd/netcleat/show"
	"github.com/netcleat/netcleat/pkg/evidence"
)

// Forget ends the connections of containers that are provably gone and of which
// the plugins have no record, as after a boot: the library remembers them for
// ever, since no runtime will detach them.
func Forget(ctx context.Context, o Options, w io.Writer) error {
	rows, err := show.Rows(o.Places)
	errs := []error{err}
	j, jerr := evidence.New()
	if jerr != nil {
		return errors.Join(err, jerr)
	}
	for _, r := range rows {
		if _, _, ours := attached.Connected(r.Container); !ours || r.Recorded {
			continue
		}
		v := judge(j, r)
		switch v.State {
		case evidence.Alive:
			continue
		case evidence.Unknown:
			fmt.Fprintf(w, "left %s: not provably dead: %s\n", name(r), v.Why)
			continue
		}
		if err := o.forget(ctx, r); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name(r), err))
			continue
		}
		fmt.Fprintf(w, "%s %s: %s\n", map[bool]string{false: "forgot", true: "would forget"}[o.DryRun], name(r), v.Why)
	}
	return errors.Join(append(errs, j.Close())...)
}

// judge says by the container's ID alone whether its namespace exists.
func judge(j *evidence.Judge, r show.Row) evidence.Verdict {
	was, thisBoot, _ := attached.Connected(r.Container)
	if !thisBoot {
		return evidence.Verdict{State: evidence.Dead, Why: "it was connected in another boot"}
	}
	was.Dev = j.Host().Dev // one file system has all namespaces
	return j.Sandbox(r.Netns, was)
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
	conf, rt, err := o.Library().GetNetworkListCachedConfig(&libcni.NetworkConfigList{Name: r.Network}, rt)
	if err != nil || conf == nil || o.DryRun {
		return err
	}
	list, err := libcni.NetworkConfFromBytes(conf)
	if err != nil {
		return err
	}
	if err := o.Installed(list); err != nil {
		return err
	}
	return o.Library().DelNetworkList(ctx, list, rt)
}
