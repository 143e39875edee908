package clusterd

import (
	"context"
	"errors"
	"log"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/cmd/netcleat/overlay"
	"github.com/netcleat/netcleat/pkg/nl"
)

// kernel is the forwarder of the host's network namespace.
type kernel struct{ conn *nl.Conn }

func openKernel() (*kernel, error) {
	c, err := nl.Dial(nil, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, err
	}
	return &kernel{c}, nil
}

func (k *kernel) close() error { return k.conn.Close() }

func (k *kernel) program(n *overlay.Network) (overlay.State, error) {
	return overlay.Program(k.conn, n)
}

func (k *kernel) find(n *overlay.Network) (overlay.Links, error) { return overlay.Find(k.conn, n) }

// watchLinks calls changed after interfaces of the host have come, gone or changed.
func watchLinks(ctx context.Context, logger *log.Logger, changed func()) {
	w, err := nl.NewWatch(nil, unix.RTNLGRP_LINK)
	if err != nil {
		logger.Print(err)
		return
	}
	defer func() { _ = w.Close() }() // the daemon ends
	const look = time.Second         // whether the daemon ends
	for ctx.Err() == nil {
		first := true
		err := w.Until(time.Now().Add(look), func() (bool, error) {
			event := !first
			first = false
			return event, nil
		})
		switch {
		case err == nil:
			changed()
		case !errors.Is(err, os.ErrDeadlineExceeded):
			logger.Print(err)
			return
		}
	}
}
