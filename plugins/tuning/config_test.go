package tuning

import (
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcleat/netcleat/pkg/cnierr"
	"github.com/netcleat/netcleat/pkg/nltest"
	"github.com/netcleat/netcleat/pkg/plugin"
)

func call(keys, args, ifName string) *plugin.Call {
	return &plugin.Call{Verb: plugin.Add, Journal: "/run/netcleat", IfName: ifName, Args: args, Stdin: []byte(`{"cniVersion":"1.1.0","name":"net","type":"tuning",` + keys + `}`)}
}

func TestParse(t *testing.T) {
	sysctls := func(pairs ...string) (all []setting) {
		for i := 0; i < len(pairs); i += 3 {
			all = append(all, setting{pairs[i], pairs[i+1], pairs[i+2]})
		}
		return all
	}
	for _, tc := range []struct {
		name, keys, args, ifName string
		want                     config
	}{
		{"nothing", `"x":1`, "", "eth0", config{}},
		{"nothing in args", `"sysctl":{},"args":{"cni":{"sysctl":{}}},"mac":"","mtu":0`, "", "eth0", config{}},
		{"in order", `"sysctl":{"net.ipv4.tcp_b":"1","net.ipv4.tcp_a":"2"}`, "", "eth0", config{Sysctls: sysctls("net.ipv4.tcp_b", "net/ipv4/tcp_b", "1", "net.ipv4.tcp_a", "net/ipv4/tcp_a", "2")}},
		{"slashes", `"sysctl":{"net/ipv4/conf/eth0.7/arp_filter":"1"}`, "", "eth0", config{Sysctls: sysctls("net/ipv4/conf/eth0.7/arp_filter", "net/ipv4/conf/eth0.7/arp_filter", "1")}},
		{"slash in front", `"sysctl":{"/net/core/somaxconn":"500"}`, "", "eth0", config{Sysctls: sysctls("/net/core/somaxconn", "net/core/somaxconn", "500")}},
		{"IFNAME", `"sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1"}`, "", "eth0.7", config{Sysctls: sysctls("net.ipv4.conf.IFNAME.arp_filter", "net/ipv4/conf/eth0.7/arp_filter", "1")}},
		{"dotted name of the interface", `"sysctl":{"net.ipv4.conf.eth0.798.arp_filter":"1"}`, "", "eth0.798", config{Sysctls: sysctls("net.ipv4.conf.eth0.798.arp_filter", "net/ipv4/conf/eth0.798/arp_filter", "1")}},
		{"dotted name as sysctl(8) has it", `"sysctl":{"net.ipv4.conf.eth0/798.arp_filter":"1"}`, "", "eth1", config{Sysctls: sysctls("net.ipv4.conf.eth0/798.arp_filter", "net/ipv4/conf/eth0.798/arp_filter", "1")}},
		{"args without sysctl", `"args":{"cni":{"sysctl":{"net.ipv4.tcp_a":"2"}}}`, "", "eth0", config{Sysctls: sysctls("net.ipv4.tcp_a", "net/ipv4/tcp_a", "2")}},
		{"args over sysctl", `"sysctl":{"net.ipv4.tcp_a":"1","net.ipv4.tcp_b":"1"},"args":{"cni":{"sysctl":{"net/ipv4/tcp_a":"2","net.ipv4.tcp_c":"3"}}}`, "", "eth0", config{Sysctls: sysctls("net/ipv4/tcp_a", "net/ipv4/tcp_a", "2", "net.ipv4.tcp_b", "net/ipv4/tcp_b", "1", "net.ipv4.tcp_c", "net/ipv4/tcp_c", "3")}},
		{"several fields, none", `"sysctl":{"net.ipv4.tcp_rmem":"4096 87380\t6291456\n","net.ipv4.ip_local_reserved_ports":""}`, "", "eth0", config{Sysctls: sysctls("net.ipv4.tcp_rmem", "net/ipv4/tcp_rmem", "4096 87380\t6291456", "net.ipv4.ip_local_reserved_ports", "net/ipv4/ip_local_reserved_ports", "")}},
		{"link", `"mac":"C2:B0:57:49:47:F1","mtu":1454,"promisc":true,"allmulti":false,"txQLen":0`, "", "eth0", config{Link: attributes{MAC: "c2:b0:57:49:47:f1", MTU: 1454, Promisc: yes, AllMulti: no, TxQLen: queue{true, 0}}}},
		{"MAC from CNI_ARGS", `"mac":"c2:b0:57:49:47:f1"`, "IgnoreUnknown=1;MAC=c2:b0:57:49:47:f2;A=b", "eth0", config{Link: attributes{MAC: "c2:b0:57:49:47:f2"}}},
		{"MAC from the capability", `"mac":"c2:b0:57:49:47:f1","runtimeConfig":{"mac":"c2:b0:57:49:47:f3"}`, "MAC=c2:b0:57:49:47:f2", "eth0", config{Link: attributes{MAC: "c2:b0:57:49:47:f3"}}},
		{"args last", `"mac":"c2:b0:57:49:47:f1","promisc":true,"mtu":1400,"allmulti":true,"txQLen":5,"runtimeConfig":{"mac":"c2:b0:57:49:47:f3"},"args":{"cni":{"mac":"c2:b0:57:49:47:f4","promisc":false,"mtu":1300,"allmulti":false,"txQLen":6}}`, "", "eth0", config{Link: attributes{MAC: "c2:b0:57:49:47:f4", MTU: 1300, AllMulti: no, TxQLen: queue{true, 6}}}},
		{"dataDir", `"dataDir":"/x"`, "", "eth0", config{DataDir: "/x"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parse(call(tc.keys, tc.args, tc.ifName))
			if err != nil {
				t.Fatal(err)
			}
			if tc.want.DataDir == "" {
				tc.want.DataDir = defaultDataDir
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("config (-want +got):\n%s", diff)
			}
		})
	}
}

// TestParseRefuses goes through what a hostile or mistaken author may write.
func TestParseRefuses(t *testing.T) {
	const badKey, badValue = "invalid net sysctl key", "not one line of printable characters"
	for _, tc := range []struct {
		keys, args string
		code       uint
		want       string
	}{
		{`"sysctl":{"kernel.core_pattern":"|/bin/sh"}`, "", cnierr.InvalidConfig, badKey},
		{`"sysctl":{"net":"1"}`, "", cnierr.InvalidConfig, badKey},
		{`"sysctl":{"":"1"}`, "", cnierr.InvalidConfig, badKey},
		{`"sysctl":{"/proc/sys/net/ipv4/ip_forward":"1"}`, "", cnierr.InvalidConfig, badKey},
		{`"sysctl":{"net/../kernel/core_pattern":"1"}`, "", cnierr.InvalidConfig, badKey},
		{`"sysctl":{"/net/../kernel/core_pattern":"1"}`, "", cnierr.InvalidConfig, badKey},
		{`"sysctl":{"//net/core/somaxconn":"1"}`, "", cnierr.InvalidConfig, badKey},
		{`"sysctl":{"/net/core/somaxconn":"1","net/core/somaxconn":"1"}`, "", cnierr.InvalidConfig, "duplicated sysctl keys are not allowed"},
		{`"sysctl":{"net.//.kernel.core_pattern":"1"}`, "", cnierr.InvalidConfig, badKey},
		{`"sysctl":{"net...kernel":"1"}`, "", cnierr.InvalidConfig, badKey},
		{`"sysctl":{"net/ipv4/./ip_forward":"1"}`, "", cnierr.InvalidConfig, badKey},
		{`"sysctl":{"net.ipv4.ip_forward.":"1"}`, "", cnierr.InvalidConfig, badKey},
		{`"sysctl":{"net.ipv4.ip_forward\u0000":"1"}`, "", cnierr.InvalidConfig, badKey},
		{`"sysctl":{"net.ipv4.ip forward":"1"}`, "", cnierr.InvalidConfig, badKey},
		{`"sysctl":{"network.ipv4":"1"}`, "", cnierr.InvalidConfig, badKey},
		{`"sysctl":{"net.ipv4.ip_forward":"1\nkernel.core_pattern=x"}`, "", cnierr.InvalidConfig, badValue},
		{`"sysctl":{"net.ipv4.ip_forward":"1\u0000"}`, "", cnierr.InvalidConfig, badValue},
		{`"sysctl":{"net.ipv4.ip_forward":"` + strings.Repeat("1", 5000) + `"}`, "", cnierr.InvalidConfig, badValue},
		{`"sysctl":{"net.ipv4.ip_forward":"1","net.ipv4.ip_forward":"0"}`, "", cnierr.InvalidConfig, "duplicated sysctl keys are not allowed"},
		{`"sysctl":{"net.ipv4.ip_forward":"1","net/ipv4/ip_forward":"0"}`, "", cnierr.InvalidConfig, "duplicated sysctl keys are not allowed"},
		{`"args":{"cni":{"sysctl":{"kernel.core_pattern":"x"}}}`, "", cnierr.InvalidConfig, badKey},
		{`"sysctl":["net.ipv4.ip_forward"]`, "", cnierr.DecodingFailure, "not an object"},
		{`"sysctl":{"net.ipv4.ip_forward":1}`, "", cnierr.DecodingFailure, "net.ipv4.ip_forward"},
		{`"mac":"zz"`, "", cnierr.InvalidConfig, "invalid args zz for MAC addr"},
		{`"mac":"01:00:5e:00:00:01"`, "", cnierr.InvalidConfig, "for MAC addr"},
		{`"mac":"00:00:00:00:00:00"`, "", cnierr.InvalidConfig, "for MAC addr"},
		{`"x":1`, "MAC=zz", cnierr.InvalidConfig, "invalid args zz for MAC addr"},
		{`"x":1`, "A=b", cnierr.InvalidEnvironment, `ARGS: unknown args ["A=b"]`},
		{`"dataDir":"/run/netcleat/net"`, "", cnierr.InvalidConfig, "which is for the plugins' records"},
		{`"mtu":-1`, "", cnierr.InvalidConfig, "mtu -1"},
		{`"txQLen":-1`, "", cnierr.InvalidConfig, "txQLen -1"},
		{`"mtu":"big"`, "", cnierr.DecodingFailure, "failed to load netconf"},
	} {
		t.Run(tc.keys[:min(60, len(tc.keys))], func(t *testing.T) {
			_, err := parse(call(tc.keys, tc.args, "eth0"))
			if err == nil || cnierr.Code(err) != tc.code || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("code %d, error %v; want code %d, %q", cnierr.Code(err), err, tc.code, tc.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, conf := range nltest.Examples(f, "tuning") {
		f.Add(conf[1:len(conf)-1], "", "eth0")
	}
	f.Add(`"sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1"},"mac":"c2:b0:57:49:47:f1"`, "MAC=c2:b0:57:49:47:f1", "eth0.1")
	f.Add(`"args":{"cni":{"sysctl":{"net/ipv4/x":"2"},"mtu":5}},"promisc":true`, "", "eth0")
	f.Fuzz(func(t *testing.T, keys, args, ifName string) {
		if strings.ContainsAny(ifName, "/: \t\n\v\f\r\u0085\u00a0") || ifName == "." || ifName == ".." {
			return // package plugin has refused it
		}
		conf, err := parse(call(keys, args, ifName))
		if err != nil {
			if cnierr.Code(err) == cnierr.Internal {
				t.Errorf("error without a code: %v", err)
			}
			return
		}
		for _, s := range conf.Sysctls {
			if !strings.HasPrefix(path.Join("/proc/sys", s.Key), "/proc/sys/net/") || path.Clean(s.Key) != s.Key {
				t.Errorf("%q leaves net: %q", s.Name, s.Key)
			}
		}
	})
}
