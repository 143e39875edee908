package nft_test

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/nft"
	"github.com/netcleat/netcleat/pkg/nltest"
)

var (
	table = nft.Table{Family: nft.Inet, Name: "test"}
	chain = nft.Chain{Table: table, Name: "chain"}
	set   = nft.Set{Table: table, Name: "set", Key: []nft.Type{nft.TypePort}, Expiring: true}
)

func dial(t *testing.T, gate func(string) error) (*nltest.Bed, *nft.Conn) {
	t.Helper()
	w := nltest.New(t)
	c, err := nft.Dial(nil, gate)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return w, c
}

// TestUpdateStartsOver: what others have changed since the look is looked at.
func TestUpdateStartsOver(t *testing.T) {
	w, c := dial(t, nil)
	looks := 0
	err := c.Update(t.Context(), "test", func(tx *nft.Tx) error {
		if looks++; looks < 3 {
			w.Run("nft", "add", "table", "inet", "other"+strings.Repeat("x", looks))
		}
		tx.EnsureTable(table, "")
		return nil
	})
	if err != nil || looks != 3 {
		t.Errorf("%d looks, %v; want 3", looks, err)
	}
}

// TestAllOrNothing: one refused change takes the others with it.
func TestAllOrNothing(t *testing.T) {
	w, c := dial(t, nil)
	err := c.Update(t.Context(), "test", func(tx *nft.Tx) error {
		tx.EnsureTable(table, "")
		tx.DeleteChain(chain)
		return nil
	})
	if !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "delete chain chain") {
		t.Errorf("error: %v", err)
	}
	if out := w.Run("nft", "list", "ruleset"); out != "" {
		t.Errorf("made all the same:\n%s", out)
	}
	// The socket is as good as before.
	if there, err := c.HasTable(table); there || err != nil {
		t.Errorf("table: %v, %v", there, err)
	}
}

// TestGate: a transaction is one change, and an empty one is none.
func TestGate(t *testing.T) {
	var asked []string
	_, c := dial(t, func(what string) error { asked = append(asked, what); return unix.EPERM })
	if err := c.Update(t.Context(), "nothing", func(*nft.Tx) error { return nil }); err != nil {
		t.Error(err)
	}
	err := c.Update(t.Context(), "something", func(tx *nft.Tx) error { tx.EnsureTable(table, ""); tx.EnsureChain(chain); return nil })
	if !errors.Is(err, unix.EPERM) || len(asked) != 1 || asked[0] != "something" {
		t.Errorf("asked %q, error %v", asked, err)
	}
}

// TestElements: many at once are found by key, and go.
func TestElements(t *testing.T) {
	w, c := dial(t, nil)
	var elems []nft.Elem
	var keys [][]byte
	for i := range 1000 {
		key := []byte{byte(i >> 8), byte(i)}
		elems, keys = append(elems, nft.Elem{Key: key, Comment: "mine"}), append(keys, key)
	}
	err := c.Update(t.Context(), "test", func(tx *nft.Tx) error {
		tx.EnsureTable(table, "")
		tx.EnsureSet(set)
		tx.AddNew(set, elems...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	found, err := c.Find(set, append(keys, []byte{0xff, 0xff})...)
	if err != nil || len(found) != 1000 || found[999].Comment != "mine" {
		t.Fatalf("found %d, %v", len(found), err)
	}
	again := func(tx *nft.Tx) error { tx.AddNew(set, elems[0]); return nil }
	if err := c.Update(t.Context(), "again", again); !errors.Is(err, unix.EEXIST) {
		t.Errorf("an element that is there: %v", err)
	}
	err = c.Update(t.Context(), "test", func(tx *nft.Tx) error { tx.Remove(set, elems[1:]...); return nil })
	if err != nil || strings.Count(w.Run("nft", "list", "ruleset"), "mine") != 1 {
		t.Errorf("after Remove of all but one: %v", err)
	}
}

// TestDeleteBare spares what says something.
func TestDeleteBare(t *testing.T) {
	w, c := dial(t, nil)
	filter := nft.Table{Family: nft.IPv4, Name: "filter"}
	w.Run("iptables", "-A", "FORWARD", "-j", "ACCEPT")
	for _, step := range []struct {
		then []string
		left bool
	}{
		{[]string{"iptables", "-P", "FORWARD", "DROP"}, true},
		{[]string{"iptables", "-F"}, true},
		{[]string{"iptables", "-P", "FORWARD", "ACCEPT"}, false},
	} {
		w.Run(step.then[0], step.then[1:]...)
		if err := c.DeleteBare(t.Context(), filter); err != nil {
			t.Fatal(err)
		}
		if there, err := c.HasTable(filter); there != step.left || err != nil {
			t.Errorf("after %v: %v, %v", step.then, there, err)
		}
	}
}

// TestCloseAfterDeletion: it needs no system call that a service's filter may kill
// for (systemd's SystemCallFilter does so for io_uring's).
func TestCloseAfterDeletion(t *testing.T) {
	w, c := dial(t, nil)
	nltest.Kill(t, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER)
	for _, build := range []func(*nft.Tx) error{
		func(tx *nft.Tx) error { tx.EnsureTable(table, ""); tx.EnsureChain(chain); return nil },
		func(tx *nft.Tx) error { tx.DeleteTable(table); return nil },
	} {
		if err := c.Update(t.Context(), "test", build); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if out := w.Run("nft", "list", "ruleset"); out != "" {
		t.Errorf("left:\n%s", out)
	}
}
