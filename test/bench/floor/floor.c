//go:build ignore
// (The line above keeps this file out of the Go build.)
//
// The C twin of the Go floor: KIND=bridge with one IPv4 address, from the same environment. It shows what Go's runtime
// costs. Build: gcc -O2 -static -o floor-c floor.c
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static char buf[2048];          /* the requests that wait for one send */
static size_t len;              /* bytes in buf */
static struct nlmsghdr *last;   /* the last request */
static uint32_t seq, may_exist; /* its number, and the one whose EEXIST is fine */

static void die(const char *what)
{
	const char *why = strerror(errno);
	if (write(2, what, strlen(what)) < 0 || write(2, ": ", 2) < 0 || write(2, why, strlen(why)) < 0)
		_exit(2);
	_exit(1);
}

static const char *env(const char *name)
{
	const char *v = getenv(name);
	return v ? v : "";
}

static void *append(const void *data, size_t n)
{
	void *at = buf + len;
	if (data)
		memcpy(at, data, n);
	len = NLMSG_ALIGN(len + n);
	last->nlmsg_len = buf + len - (char *)last;
	return at;
}

static void request(uint16_t type, uint16_t flags, const void *header, size_t n)
{
	last = (struct nlmsghdr *)(buf + len);
	last->nlmsg_type = type;
	last->nlmsg_flags = NLM_F_REQUEST | flags;
	last->nlmsg_seq = ++seq;
	len += NLMSG_HDRLEN;
	append(header, n);
}

static void attr(uint16_t type, const void *data, size_t n)
{
	struct rtattr a = {.rta_len = RTA_LENGTH(n), .rta_type = type};
	append(&a, sizeof a);
	append(data, n);
}

static struct rtattr *begin(uint16_t type)
{
	struct rtattr a = {.rta_len = 0, .rta_type = type | NLA_F_NESTED};
	return append(&a, sizeof a);
}

static void end(struct rtattr *a) { a->rta_len = buf + len - (char *)a; }

/* Sends all requests in one message and waits for the answer to the last. */
static void submit(int fd)
{
	char reply[8192];
	struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};

	last->nlmsg_flags |= NLM_F_ACK;
	if (sendto(fd, buf, len, 0, (void *)&kernel, sizeof kernel) < 0)
		die("send");
	memset(buf, 0, len);
	len = 0;
	for (;;) {
		int n = recv(fd, reply, sizeof reply, 0);
		if (n < 0)
			die("receive");
		for (struct nlmsghdr *h = (void *)reply; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
			struct nlmsgerr *e = NLMSG_DATA(h);
			errno = -e->error;
			if (errno && !(errno == EEXIST && h->nlmsg_seq == may_exist))
				die("answer");
			if (h->nlmsg_seq == seq)
				return;
		}
	}
}

static int netlink(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (fd < 0)
		die("socket");
	return fd;
}

static unsigned link_index(int fd, const char *name)
{
	struct ifreq r = {0};
	strncpy(r.ifr_name, name, IFNAMSIZ - 1);
	return ioctl(fd, SIOCGIFINDEX, &r) < 0 ? 0 : r.ifr_ifindex;
}

/* Reads n bytes of hexadecimal and returns what follows. */
static const char *hex(const char *s, unsigned char *out, int n)
{
	for (; n > 0; n--, s += 2) {
		char digits[3] = {s[0], s[0] ? s[1] : 0, 0};
		*out++ = strtoul(digits, NULL, 16);
	}
	return s;
}

static void address(unsigned link, const unsigned char *a, int bits, int exists)
{
	struct ifaddrmsg h = {.ifa_family = AF_INET, .ifa_prefixlen = bits, .ifa_index = link};
	uint32_t broadcast;

	memcpy(&broadcast, a, 4);
	broadcast |= htonl(0xffffffffu >> bits);
	request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &h, sizeof h);
	if (exists)
		may_exist = seq;
	attr(IFA_LOCAL, a, 4);
	attr(IFA_ADDRESS, a, 4);
	attr(IFA_BROADCAST, &broadcast, 4);
}

static void veth(unsigned bridge, int sandbox)
{
	unsigned char mac[2][6];
	uint32_t mtu = 1500;
	struct ifinfomsg h = {.ifi_flags = IFF_UP, .ifi_change = IFF_UP}, peer = {0};

	hex(hex(env("MACS"), mac[0], 6) + 1, mac[1], 6);
	request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &h, sizeof h);
	attr(IFLA_IFNAME, env("HOST"), strlen(env("HOST")) + 1);
	attr(IFLA_ADDRESS, mac[0], 6);
	attr(IFLA_MTU, &mtu, 4);
	attr(IFLA_MASTER, &bridge, 4);
	struct rtattr *info = begin(IFLA_LINKINFO);
	attr(IFLA_INFO_KIND, "veth", 4);
	struct rtattr *data = begin(IFLA_INFO_DATA), *other = begin(VETH_INFO_PEER);
	append(&peer, sizeof peer);
	attr(IFLA_IFNAME, env("IFNAME"), strlen(env("IFNAME")) + 1);
	attr(IFLA_ADDRESS, mac[1], 6);
	attr(IFLA_MTU, &mtu, 4);
	attr(IFLA_NET_NS_FD, &sandbox, 4);
	end(other);
	end(data);
	end(info);
}

static void configure_sandbox(int fd, const unsigned char *a, int bits, const unsigned char *gateway)
{
	unsigned link = link_index(fd, env("IFNAME"));
	struct ifinfomsg none = {.ifi_index = link};
	struct ifinfomsg up = {.ifi_index = link, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
	struct rtmsg r = {.rtm_family = AF_INET, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_BOOT, .rtm_type = RTN_UNICAST};
	unsigned char mode = IN6_ADDR_GEN_MODE_NONE;

	request(RTM_NEWLINK, 0, &none, sizeof none);
	struct rtattr *spec = begin(IFLA_AF_SPEC), *inet6 = begin(AF_INET6);
	attr(IFLA_INET6_ADDR_GEN_MODE, &mode, 1);
	end(inet6);
	end(spec);
	request(RTM_NEWLINK, 0, &up, sizeof up);
	address(link, a, bits, 0);
	request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &r, sizeof r);
	attr(RTA_GATEWAY, gateway, 4);
	attr(RTA_OIF, &link, 4);
	submit(fd);
}

static void add(void)
{
	unsigned char a[4], gateway[4];
	int bits = atoi(hex(env("ADDRESSES"), a, 4) + 1);
	int host = netlink(), sandbox = open(env("SANDBOX"), O_RDONLY | O_CLOEXEC);

	if (sandbox < 0)
		die("sandbox");
	hex(env("GATEWAYS"), gateway, 4);
	unsigned bridge = link_index(host, env("MASTER"));
	address(bridge, gateway, bits, 1);
	veth(bridge, sandbox);
	submit(host);
	if (setns(sandbox, CLONE_NEWNET) < 0)
		die("setns");
	may_exist = 0;
	configure_sandbox(netlink(), a, bits, gateway);
}

static void del(void)
{
	struct ifinfomsg none = {0};
	request(RTM_DELLINK, 0, &none, sizeof none);
	attr(IFLA_IFNAME, env("HOST"), strlen(env("HOST")) + 1);
	submit(netlink());
}

int main(void)
{
	if (strcmp(env("VERB"), "ADD") == 0)
		add();
	else
		del();
	_exit(0);
}
