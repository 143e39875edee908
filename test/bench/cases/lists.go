package cases

// The lists. Those of runtimes are what the runtimes write; their subnets are a /16 here, so that the same list holds a
// thousand containers.
const (
	bridge = `{"cniVersion":"1.1.0","name":"bench","plugins":[
	{"type":"bridge","bridge":"cni0","isGateway":true,
	 "ipam":{"type":"host-local","ranges":[[{"subnet":"10.22.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}`

	bridgeMasq = `{"cniVersion":"1.1.0","name":"bench","plugins":[
	{"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true{{with .}},"ipMasqBackend":"{{.}}"{{end}},
	 "ipam":{"type":"host-local","ranges":[[{"subnet":"10.22.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}`

	nerdctl = `{"cniVersion":"1.0.0","name":"bridge",
	"nerdctlID":"17f29b073143d8cd97b5bbe492bdeffec1c5fee55cc1fe2112c8b9335f8b6121",
	"nerdctlLabels":{"nerdctl/default-network":"true"},"plugins":[
	{"type":"bridge","bridge":"nerdctl0","isGateway":true,"ipMasq":true,"hairpinMode":true,
	 "ipam":{"type":"host-local","routes":[{"dst":"0.0.0.0/0"}],"ranges":[[{"subnet":"10.22.0.0/16","gateway":"10.22.0.1"}]]}},
	{"type":"portmap","capabilities":{"portMappings":true}},
	{"type":"firewall","ingressPolicy":"same-bridge"},
	{"type":"tuning"}]}`

	podman = `{"cniVersion":"0.4.0","name":"podman","args":{"podman_labels":{},"podman_options":{}},"plugins":[
	{"type":"bridge","bridge":"cni-podman0","isGateway":true,"ipMasq":true,"hairpinMode":true,
	 "ipam":{"type":"host-local","routes":[{"dst":"0.0.0.0/0"}],"ranges":[[{"subnet":"10.22.0.0/16","gateway":"10.22.0.1"}]]},
	 "capabilities":{"ips":true}},
	{"type":"portmap","capabilities":{"portMappings":true}},
	{"type":"firewall","backend":""},
	{"type":"tuning"}]}`

	containerd = `{"cniVersion":"1.0.0","name":"containerd-net","plugins":[
	{"type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,"promiscMode":true,
	 "ipam":{"type":"host-local","ranges":[[{"subnet":"10.22.0.0/16"}],[{"subnet":"fd22::/64"}]],
	  "routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}},
	{"type":"portmap","capabilities":{"portMappings":true}}]}`

	publish = `{"cniVersion":"1.0.0","name":"bench","plugins":[
	{"type":"bridge","bridge":"cni0","isGateway":true,
	 "ipam":{"type":"host-local","ranges":[[{"subnet":"10.22.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
	{"type":"portmap","capabilities":{"portMappings":true}{{with .}},"backend":"{{.}}"{{end}}}]}`

	ptp = `{"cniVersion":"1.1.0","name":"bench","plugins":[
	{"type":"ptp","ipam":{"type":"host-local","ranges":[[{"subnet":"10.23.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}`

	ptpDual = `{"cniVersion":"1.1.0","name":"bench","plugins":[
	{"type":"ptp","ipam":{"type":"host-local","ranges":[[{"subnet":"10.23.0.0/16"}],[{"subnet":"fd23::/64"}]],
	 "routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}}]}`

	macvlan = `{"cniVersion":"1.1.0","name":"bench","plugins":[
	{"type":"macvlan","master":"up0","ipam":{"type":"host-local","ranges":[[{"subnet":"10.24.0.0/16"}]],
	 "routes":[{"dst":"0.0.0.0/0"}]}}]}`

	macvlanDual = `{"cniVersion":"1.1.0","name":"bench","plugins":[
	{"type":"macvlan","master":"up0","ipam":{"type":"host-local","ranges":[[{"subnet":"10.24.0.0/16"}],[{"subnet":"fd24::/64"}]],
	 "routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}}]}`

	loopback = `{"cniVersion":"1.0.0","name":"cni-loopback","plugins":[{"type":"loopback"}]}`

	portmapNothing = `{"cniVersion":"1.0.0","name":"bench","plugins":[
	{"type":"portmap","capabilities":{"portMappings":true},"prevResult":{"cniVersion":"1.0.0",
	 "interfaces":[{"name":"eth0","mac":"0a:58:0a:16:00:02","sandbox":"/run/netns/s0"}],
	 "ips":[{"interface":0,"address":"10.22.0.2/16","gateway":"10.22.0.1"}]}}]}`

	hostLocal = `{"cniVersion":"1.1.0","name":"bench","plugins":[
	{"type":"host-local","ipam":{"type":"host-local","ranges":[[{"subnet":"10.22.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}`
)
