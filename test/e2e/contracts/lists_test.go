// Package contracts has the stories of runtimes that the tests cannot install:
// their own configurations, and their calls in their order.
package contracts

// The lists as the runtimes write them, with the keys that only they know.
const (
	nerdctlList = `{
  "cniVersion": "1.0.0", "name": "bridge",
  "nerdctlID": "17f29b073143d8cd97b5bbe492bdeffec1c5fee55cc1fe2112c8b9335f8b6121",
  "nerdctlLabels": {"nerdctl/default-network": "true"},
  "plugins": [
    {
      "type": "bridge", "bridge": "nerdctl0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
      "ipam": {
        "type": "host-local", "routes": [{"dst": "0.0.0.0/0"}],
        "ranges": [[{"subnet": "10.4.0.0/24", "gateway": "10.4.0.1"}]]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}},
    {"type": "firewall", "ingressPolicy": "same-bridge"},
    {"type": "tuning"}
  ]
}`

	// A network of nerdctl's user: with an IP range and an address kept out of it.
	nerdctlUserList = `{
  "cniVersion": "1.0.0", "name": "user", "nerdctlID": "04f8996da763b7a969b1028ee3007569eaf3a635486ddab211d512c85b9df8fb",
  "nerdctlLabels": {},
  "plugins": [
    {
      "type": "bridge", "bridge": "br-04f8996da763", "mtu": 1400, "isGateway": true, "ipMasq": true, "hairpinMode": true,
      "capabilities": {"ips": true},
      "ipam": {
        "type": "host-local", "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        "ranges": [
          [
            {"subnet": "10.4.1.0/24", "rangeStart": "10.4.1.17", "rangeEnd": "10.4.1.19", "gateway": "10.4.1.1", "ipRange": "10.4.1.16/28"},
            {"subnet": "10.4.1.0/24", "rangeStart": "10.4.1.21", "rangeEnd": "10.4.1.31", "gateway": "10.4.1.1", "ipRange": "10.4.1.16/28"}
          ],
          [{"subnet": "fd00:4::/64", "gateway": "fd00:4::1"}]
        ]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}},
    {"type": "firewall", "ingressPolicy": "same-bridge"},
    {"type": "tuning"}
  ]
}`

	podmanList = `{
  "cniVersion": "0.4.0", "name": "podman", "args": {"podman_labels": {}, "podman_options": {}},
  "plugins": [
    {
      "type": "bridge", "bridge": "cni-podman0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
      "ipam": {
        "type": "host-local", "routes": [{"dst": "0.0.0.0/0"}],
        "ranges": [[{"subnet": "10.88.0.0/16", "gateway": "10.88.0.1"}]]
      },
      "capabilities": {"ips": true}
    },
    {"type": "portmap", "capabilities": {"portMappings": true}},
    {"type": "firewall", "backend": ""},
    {"type": "tuning"}
  ]
}`

	containerdList = `{
  "cniVersion": "1.0.0", "name": "containerd-net",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "promiscMode": true,
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.89.0.0/16"}], [{"subnet": "2001:4860:4860::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}`

	crioList = `{
  "cniVersion": "1.0.0", "name": "crio",
  "plugins": [
    {
      "type": "bridge", "bridge": "crio0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
      "ipam": {
        "type": "host-local", "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        "ranges": [[{"subnet": "10.85.0.0/16"}], [{"subnet": "1100:200::/24"}]]
      }
    }
  ]
}`
)

// bridges of the lists, which stay.
var bridges = []string{"nerdctl0", "br-04f8996da763", "cni-podman0", "cni0", "crio0"}

// portMappings as go-cni passes them: its structs have no names for JSON.
func portMappings(hostPort int) []map[string]any {
	return []map[string]any{{"HostPort": hostPort, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}}
}
