package main

import (
	"net/netip"
	"strings"
)

// without gives the networks that are left of one when others are taken out; none of another family.
func without(whole string, except []string) []string {
	prefix, err := netip.ParsePrefix(whole)
	if err != nil || !prefix.Addr().Is4() {
		return []string{}
	}
	left := []netip.Prefix{prefix.Masked()}
	for _, text := range except {
		hole, err := netip.ParsePrefix(text)
		if err != nil {
			continue
		}
		var next []netip.Prefix
		for _, net := range left {
			next = append(next, minus(net, hole.Masked())...)
		}
		left = next
	}
	texts := []string{}
	for _, net := range left {
		texts = append(texts, strings.TrimSuffix(net.String(), "/32"))
	}
	return texts
}

// minus halves a network until its parts are inside or outside of the hole.
func minus(net, hole netip.Prefix) []netip.Prefix {
	switch {
	case !net.Overlaps(hole):
		return []netip.Prefix{net}
	case hole.Bits() <= net.Bits():
		return nil
	}
	low := netip.PrefixFrom(net.Addr(), net.Bits()+1)
	bytes := net.Addr().As4()
	bytes[net.Bits()/8] |= 1 << (7 - net.Bits()%8)
	high := netip.PrefixFrom(netip.AddrFrom4(bytes), net.Bits()+1)
	return append(minus(low, hole), minus(high, hole)...)
}
