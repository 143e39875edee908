package link

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// An ADD does not fail because the kernel's workers are behind; it fails where the
// kernel cannot be asked.
func TestWorkersBehind(t *testing.T) {
	asked := 0
	err := until(nil, unix.RTNLGRP_LINK, 0, func() (bool, error) { asked++; return false, nil })
	if err != nil || asked < 2 {
		t.Errorf("%v, asked %d times", err, asked)
	}
	broken := errors.New("no answer")
	if err := until(nil, unix.RTNLGRP_LINK, 0, func() (bool, error) { return false, broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
}
