package journal

import (
	"context"
	"errors"
	"io/fs"
	"testing"
)

var restartKey = Key{Network: "n", ContainerID: "c", IfName: "eth0", Plugin: "p"}

func begin(t *testing.T, d Dir, args string) *Entry {
	t.Helper()
	e, err := d.Open(context.Background(), restartKey)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	e.Args = args
	if err := e.Begin(); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestRestartKeepsWhatIsBegunNext(t *testing.T) {
	d := Dir(t.TempDir())
	e := begin(t, d, "killed")
	if err := e.Restart(); err != nil {
		t.Fatal(err)
	}
	e.Args = "next"
	if err := e.Begin(); err != nil {
		t.Fatal(err)
	}
	r, err := d.Read(restartKey)
	if err != nil || r.Args != "next" {
		t.Errorf("a kill now would leave %q, %v; want the record that was begun", r.Args, err)
	}
}

func TestAbandonKeepsTheFinishedRecord(t *testing.T) {
	d := Dir(t.TempDir())
	e := begin(t, d, "first")
	if err := errors.Join(e.Done(), e.Close()); err != nil {
		t.Fatal(err)
	}
	if err := begin(t, d, "second").Abandon(); err != nil {
		t.Fatal(err)
	}
	if r, err := d.Read(restartKey); err != nil || r.Args != "first" {
		t.Errorf("record %q, %v; want the first", r.Args, err)
	}
}

func TestAbandonOfAFirstOperationLeavesNothing(t *testing.T) {
	d := Dir(t.TempDir())
	if err := begin(t, d, "only").Abandon(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Read(restartKey); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read: %v; want nothing", err)
	}
}

func TestAKilledFurtherOperationIsKnown(t *testing.T) {
	d := Dir(t.TempDir())
	e := begin(t, d, "first")
	if err := errors.Join(e.Done(), e.Close()); err != nil {
		t.Fatal(err)
	}
	if err := begin(t, d, "second").Close(); err != nil { // as a kill would
		t.Fatal(err)
	}
	e, err := d.Open(context.Background(), restartKey)
	if err != nil {
		t.Fatal(err)
	}
	if e.Found != Done || e.Args != "second" {
		t.Errorf("found %d, record %q; want a finished attachment as the killed operation wrote it", e.Found, e.Args)
	}
	if err := errors.Join(e.Remove(), e.Close()); err != nil {
		t.Error(err)
	}
}
