#!/bin/bash
# Makes the captures beside it, with real programs in network namespaces: see
# README.md. Needs root and, of Debian: busybox curl dnsmasq-base iperf3 openssl
# procps python3-scapy tcpdump wireshark-common.
set -euo pipefail
cd "$(dirname "$0")/captures"
id=pcapmake$$
scratch=$(mktemp -d)
pids=()
cleanup() {
	for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
	for n in node db api web reports; do ip netns del "$id-$n" 2>/dev/null || true; done
	rm -rf "$scratch"
}
trap cleanup EXIT
at() { local n=$1; shift; ip netns exec "$id-$n" "$@"; }
background() { local n=$1; shift; ip netns exec "$id-$n" "$@" >"$scratch/log" 2>&1 & pids+=($!); }

# The pods of docs/examples/service-accounts, each with a link of its own to the node.
ip netns add "$id-node"
at node sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0
at node ip link set lo up
pod() { # name, last part of its addresses
	ip netns add "$id-$1"
	at "$1" sysctl -qw net.ipv6.conf.default.accept_dad=0
	at node ip link add "$1" type veth peer name eth0 netns "$id-$1"
	at node ip addr add 169.254.1.1/32 dev "$1"
	at node ip addr add fe80::1/64 dev "$1" nodad
	at node ip link set "$1" up
	at "$1" ip link set lo up
	at "$1" ip addr add "10.244.0.$2/32" dev eth0
	at "$1" ip addr add "fd00:244::$2/128" dev eth0 nodad
	at "$1" ip link set eth0 up
	at "$1" ip route add default via 169.254.1.1 dev eth0 onlink
	at "$1" ip -6 route add default via fe80::1 dev eth0
	at node ip route add "10.244.0.$2" dev "$1"
	at node ip -6 route add "fd00:244::$2" dev "$1"
}
pod db 10; pod api 11; pod web 13; pod reports 14
sleep 1

mkdir "$scratch/www"; echo "hello from db" >"$scratch/www/index.html"; head -c 20000 /dev/urandom >"$scratch/www/blob"
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$scratch/key" -out "$scratch/crt" -days 2 -subj /CN=db >/dev/null 2>&1
background db busybox httpd -f -p 5432 -h "$scratch/www"
background db busybox httpd -f -p "[::]:5433" -h "$scratch/www"
background db openssl s_server -quiet -accept 8443 -key "$scratch/key" -cert "$scratch/crt" -www
background db dnsmasq -k -C /dev/null -p 53 -h --address=/db.example/10.244.0.10 --no-resolv
background db iperf3 -s -p 5201
sleep 1

capture() { # file, namespace, interface, more for tcpdump, then the program
	local file=$1 ns=$2 dev=$3; shift 3
	: >"$scratch/tcpdump"
	ip netns exec "$id-$ns" tcpdump -q -U -n -Z root -i "$dev" -w "$file" "${dump[@]}" 2>"$scratch/tcpdump" &
	local t=$!
	until grep -q 'listening' "$scratch/tcpdump" 2>/dev/null; do sleep 0.1; done
	"$@" || true
	sleep 1.2
	kill -TERM $t; wait $t || true
}
dump=()

http() {
	at api curl -s -o /dev/null http://10.244.0.10:5432/
	at api curl -s -o /dev/null http://10.244.0.10:5432/blob
	at reports curl -s -m 2 -o /dev/null http://10.244.0.10:5432/
	at web curl -s -m 2 -o /dev/null http://10.244.0.10:81/ # refused
}
capture http.pcap node any http                        # Linux cooked v2
dump=(-y LINUX_SLL); capture http-cooked1.pcap node any http; dump=()

http6() { at api curl -s -o /dev/null 'http://[fd00:244::10]:5433/'; at reports curl -s -o /dev/null 'http://[fd00:244::10]:5433/'; }
capture http6.pcap db eth0 http6                       # Ethernet

dns() { at api busybox nslookup db.example 10.244.0.10; at reports busybox nslookup db.example 10.244.0.10; }
capture dns.pcap db eth0 dns

tls() { echo 'GET / HTTP/1.0

' | at api openssl s_client -quiet -connect 10.244.0.10:8443; }
dump=(-s 96); capture tls.pcap db eth0 tls             # payloads cut, headers whole
dump=()

iperf() { at api iperf3 -c 10.244.0.10 -p 5201 -n 300K; at web iperf3 -u -c 10.244.0.10 -p 5201 -n 60K; }
dump=(-s 80); capture iperf.pcap db eth0 iperf; dump=()

pings() {
	at api busybox ping -c 2 10.244.0.10; at reports busybox ping -c 2 -6 fd00:244::10
	at web busybox traceroute -n -m 2 -w 1 -q 1 10.244.0.10   # UDP, answered by errors
}
capture icmp.pcap db eth0 pings

fragments() { at api busybox ping -c 1 -s 4000 10.244.0.10; at reports busybox ping -6 -c 1 -s 4000 fd00:244::10; }
capture fragments.pcap db eth0 fragments

retransmissions() { # the third packet and some later ones are lost on the way
	at node nft 'add table ip loss; add chain ip loss f { type filter hook forward priority 0; }; add rule ip loss f tcp dport 5432 numgen inc mod 4 2 drop'
	at api curl -s -m 8 -o /dev/null http://10.244.0.10:5432/blob
	at node nft 'delete table ip loss'
}
capture retransmissions.pcap api eth0 retransmissions

scan() { # ten ports from the account that may not, and from outside the cluster
	at reports /usr/bin/python3 - <<'P'
import socket
for port in range(5425, 5435):
    s = socket.socket(); s.settimeout(.3); s.connect_ex(("10.244.0.10", port)); s.close()
P
}
capture scan.pcap db eth0 scan

crafted() { # what no program here sends: SCTP, VLAN tags, an unknown outside address
	at api /usr/bin/python3 - <<'P'
import logging; logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
from scapy.all import *
from scapy.layers.sctp import *
gw = getmacbyip("169.254.1.1")
for src in "10.244.0.11", "203.0.113.9":
    sendp(Ether(dst=gw)/IP(src=src, dst="10.244.0.10")/SCTP(sport=4001, dport=5432)/SCTPChunkInit(init_tag=1, a_rwnd=1500, n_out_streams=1, n_in_streams=1, init_tsn=1), iface="eth0", verbose=0)
P
}
capture sctp.pcap db eth0 crafted

# Other link types, of the same packets.
/usr/bin/python3 - <<'P'
import logging; logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
from scapy.all import *
from scapy.utils import PcapWriter
frames = [p for p in rdpcap("http6.pcap")] + [p for p in rdpcap("dns.pcap")]
def write(name, link, wrap):
    w = PcapWriter(name, linktype=link)
    for p in frames:
        if IP in p or IPv6 in p:
            w.write(wrap(p))
    w.close()
def tag(p, *tags):
    e = Ether(src=p.src, dst=p.dst)
    for t, v in tags:
        e.type = t if e.type is None else e.type
    out = bytes(p)[:12]
    for t, v in tags:
        out += t.to_bytes(2, "big") + v.to_bytes(2, "big")
    return out + bytes(p)[12:]
layer = lambda p: p[IP] if IP in p else p[IPv6]
family = lambda p: 2 if IP in p else 10
write("vlan.pcap", 1, lambda p: tag(p, (0x8100, 42)))
write("qinq.pcap", 1, lambda p: tag(p, (0x88a8, 7), (0x8100, 42)))
write("raw.pcap", 101, lambda p: bytes(layer(p)))
write("null.pcap", 0, lambda p: family(p).to_bytes(4, "little") + bytes(layer(p)))
write("loop.pcap", 108, lambda p: family(p).to_bytes(4, "big") + bytes(layer(p)))
P
editcap -F pcapng http.pcap http.pcapng
mergecap -w mixed.pcapng raw.pcap http.pcap          # two link types in one
gzip -9nk http.pcapng -c >http.pcapng.gz
rm -f http.pcap.tmp
ls -l
