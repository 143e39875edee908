package hostdevice

import (
	"bytes"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcleat/netcleat/pkg/netns"
	"github.com/netcleat/netcleat/pkg/nl"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

// vmNIC is the address of the card that the VM has for these tests, and no
// machine besides.
const vmNIC = "52:54:00:6e:6c:74"

// card is a physical device, on the host of all hosts: the namespace where the
// kernel puts it when the one that it is in dies.
type card struct {
	*nltest.Bed
	t         *testing.T
	host      *netns.NS
	name, pci string
}

// newCard loads the card's driver. It skips where there is no such card.
func newCard(t *testing.T) *card {
	t.Helper()
	k := &card{Bed: nltest.New(t), t: t}
	nltest.Require(t, "pci-nic", k.find)
	t.Cleanup(func() {
		if out, err := exec.Command("modprobe", "-r", "virtio_net").CombinedOutput(); err != nil {
			t.Errorf("modprobe: %v\n%s", err, out)
		}
		_ = k.host.Close()
	})
	return k
}

// find looks for the card without touching any other: only a machine without
// network cards, as the VM is, may have its driver loaded.
func (k *card) find() (err error) {
	classes, _ := filepath.Glob("/sys/bus/pci/devices/*/net")
	virtio, _ := filepath.Glob("/sys/bus/pci/devices/*/virtio*/net")
	cards, _ := filepath.Glob("/sys/bus/pci/drivers/virtio-pci/0000:*")
	if len(classes)+len(virtio) > 0 || len(cards) == 0 {
		return errors.New("no idle network card on the PCI bus")
	}
	if out, err := exec.Command("modprobe", "virtio_net").CombinedOutput(); err != nil {
		return errors.New(strings.TrimSpace(string(out)))
	}
	if k.host, err = netns.Open("/proc/1/ns/net"); err != nil {
		return err
	}
	c, err := nl.Dial(k.host, unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	links, err := c.Links()
	if err = errors.Join(err, c.Close()); err != nil {
		return err
	}
	for _, l := range links {
		if l.PermanentMAC.String() != vmNIC && l.MAC.String() != vmNIC {
			continue
		}
		k.name = l.Name
		dirs, err := filepath.Glob("/sys/bus/pci/devices/*/virtio*/net/" + l.Name)
		if err != nil || len(dirs) != 1 {
			return errors.New("card without a place on the PCI bus")
		}
		k.pci = filepath.Base(filepath.Dir(filepath.Dir(filepath.Dir(dirs[0]))))
		return nil
	}
	return errors.New("no card with address " + vmNIC)
}

func (k *card) do(verb string, c nltest.Call) (a nltest.Answer) {
	k.t.Helper()
	k.In(k.host, func() { a = k.Do(verb, c) })
	if a.Exit != 0 {
		k.t.Fatalf("%s: %s%s", verb, a.Stdout, a.Stderr)
	}
	return a
}

func (k *card) text() (text string) {
	k.In(k.host, func() { text, _ = k.Try("ip", "link", "show", k.name) })
	for _, volatile := range []string{"NO-CARRIER,", ",LOWER_UP", " state UP", " state DOWN", " state UNKNOWN", " qdisc noop", " qdisc pfifo_fast", " qdisc fq_codel", " qdisc mq"} {
		text = strings.ReplaceAll(text, volatile, "")
	}
	_, text, _ = strings.Cut(text, ": ") // the index
	return text
}

func (k *card) container() string {
	k.Run("ip", "netns", "add", "card")
	k.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", "card").Run() })
	return "/run/netns/card"
}

func TestPhysical(t *testing.T) {
	for what, after := range map[string]func(*card, *nltest.Call){
		"all there":     func(*card, *nltest.Call) {},
		"no path":       func(_ *card, c *nltest.Call) { c.Netns = nltest.NoNetns },
		"sandbox dies":  func(k *card, _ *nltest.Call) { k.Run("ip", "netns", "del", "card") },
		"dies, no path": func(k *card, c *nltest.Call) { k.Run("ip", "netns", "del", "card"); c.Netns = nltest.NoNetns },
		"dies, renamed and changed": func(k *card, _ *nltest.Call) {
			k.Run("ip", "-n", "card", "link", "set", "net1", "down")
			k.Run("ip", "-n", "card", "link", "set", "net1", "name", "other", "alias", "mine", "mtu", "1280", "address", "02:00:00:00:00:99")
			k.Run("ip", "netns", "del", "card")
		},
		"dies without a record": func(k *card, _ *nltest.Call) {
			k.Run("ip", "netns", "del", "card")
			k.await("net1")
			forget(k.Bed)
		},
	} {
		t.Run(what, func(t *testing.T) {
			k := newCard(t)
			state := "up"
			if strings.Contains(what, "without a record") {
				state = "down" // nobody knows any better
			}
			k.In(k.host, func() { k.IP("link", "set", k.name, state) })
			before := k.text()
			stub := dualStack()
			c := call(stub, `"pciBusID":"`+k.pci+`"`)
			c.Netns = k.container()
			a := k.do(plugin.Add, c)
			if !strings.Contains(a.Stdout, `"pciID": "`+k.pci+`"`) || !strings.Contains(a.Stdout, vmNIC) {
				t.Errorf("result:\n%s", a.Stdout)
			}
			if out := k.Run("ip", "-n", "card", "link", "show", "net1"); !strings.Contains(out, "alias "+k.name) {
				t.Error(out)
			}
			k.do(plugin.Check, with(c, `"prevResult":`+a.Stdout))
			after(k, &c)
			k.do(plugin.Del, c)
			if got := k.text(); got != before {
				t.Errorf("the card is\n%s\nand was\n%s", got, before)
			}
			if stub.Held != 0 {
				t.Error("the address is held")
			}
			k.do(plugin.Del, c)
		})
	}
}

// await waits until the host has the link.
func (k *card) await(name string) {
	k.t.Helper()
	w, err := nl.NewWatch(k.host, unix.RTNLGRP_LINK)
	if err != nil {
		k.t.Fatal(err)
	}
	err = w.Until(time.Now().Add(10*time.Second), func() (ok bool, err error) {
		k.In(k.host, func() { _, ok = k.Try("ip", "link", "show", name) })
		return ok, nil
	})
	if err := errors.Join(err, w.Close()); err != nil {
		k.t.Fatal(err)
	}
}

// The driver is unbound, and the card gone, while a container has it.
func TestUnplugged(t *testing.T) {
	k := newCard(t)
	stub := dualStack()
	c := call(stub, `"pciBusID":"`+k.pci+`"`)
	c.Netns = k.container()
	k.do(plugin.Add, c)
	if out, err := exec.Command("modprobe", "-r", "virtio_net").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, bytes.TrimSpace(out))
	}
	a := k.do(plugin.Del, c)
	if !strings.Contains(a.Stderr, "is neither in the sandbox nor on the host") {
		t.Error(a.Stderr)
	}
	if stub.Held != 0 {
		t.Error("the address is held")
	}
}
