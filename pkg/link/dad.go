package link

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nl"
)

// dadWait bounds the wait for duplicate address detection, which takes the
// kernel up to two seconds with its default of one probe.
const dadWait = 10 * time.Second

// waitDAD waits until no address of the link is tentative any more.
func waitDAD(p *nl.Pair, index int) error {
	w, err := nl.NewWatch(p.NS, unix.RTNLGRP_IPV6_IFADDR)
	if err != nil {
		return err
	}
	err = w.Until(time.Now().Add(dadWait), func() (bool, error) {
		addrs, err := p.Sandbox.Addrs(index)
		if err != nil {
			return false, err
		}
		return settled(addrs)
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("duplicate address detection has not ended after %v", dadWait)
	}
	return errors.Join(err, w.Close())
}

func settled(addrs []nl.Addr) (bool, error) {
	for _, a := range addrs {
		if a.Flags&unix.IFA_F_DADFAILED != 0 {
			return false, fmt.Errorf("address %s: duplicate: another host on the link has it", a.Prefix)
		}
		if a.Flags&unix.IFA_F_TENTATIVE != 0 {
			return false, nil
		}
	}
	return true, nil
}
