package lease

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

func fillDir(t testing.TB, dir string, n int) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	a := netip.MustParseAddr("10.1.0.2")
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, a.String()), fmt.Appendf(nil, "fill%d\r\neth0", i), 0o600); err != nil {
			t.Fatal(err)
		}
		a = a.Next()
	}
}

func BenchmarkTakeGive(b *testing.B) {
	first, last := netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.1.255.254")
	for _, n := range []int{0, 1000, 10000, 60000, 65532} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := filepath.Join(b.TempDir(), "net")
			fillDir(b, dir, n)
			p := Place{Dir: dir, Index: indexDir(b)}
			owner := Owner{"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "eth0"}
			add := func() {
				p.Boot = ThisBoot()
				s, err := Create(context.Background(), p)
				if err != nil {
					b.Fatal(err)
				}
				if l, err := s.Of(owner); err != nil || len(l) > 0 {
					b.Fatal(l, err)
				}
				from := s.Last(0)
				if !from.IsValid() {
					from = first
				}
				a, ok := s.Free(from.Next(), last)
				if !ok {
					a, ok = s.Free(first, last)
				}
				if !ok {
					b.Fatal("full")
				}
				if err := s.Take(a, owner); err != nil {
					b.Fatal(err)
				}
				if err := s.SetLast(0, a); err != nil {
					b.Fatal(err)
				}
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
			del := func() {
				p.Boot = ThisBoot()
				s, err := Open(context.Background(), p)
				if err != nil {
					b.Fatal(err)
				}
				ls, err := s.Of(owner)
				if err != nil || len(ls) != 1 {
					b.Fatal(ls, err)
				}
				if err := s.Give(ls[0]); err != nil {
					b.Fatal(err)
				}
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
			add()
			del()
			b.Run("add", func(b *testing.B) {
				for b.Loop() {
					add()
					b.StopTimer()
					del()
					b.StartTimer()
				}
			})
			b.Run("rebuild", func(b *testing.B) {
				for b.Loop() {
					s, err := Open(context.Background(), p)
					if err != nil {
						b.Fatal(err)
					}
					if err := s.rebuild(); err != nil {
						b.Fatal(err)
					}
					s.Close()
				}
			})
		})
	}
}

// indexDir is on tmpfs, as /run is.
func indexDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "lease")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
