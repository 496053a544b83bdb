package main

import (
	"fmt"
	"hash/fnv"
	"slices"
	"sort"
	"strings"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// The chain that everything forwarded passes.
const root = "UNDERSTUDY-POLICY"

// World is what the rules depend on. What they are is decided here, without asking anyone.
type World struct {
	Node       string
	Pods       []*core.Pod
	Namespaces []*core.Namespace
	Policies   []*networking.NetworkPolicy
}

// Rules gives the input of iptables-restore and the names of the chains in it; chains of `before` that are
// not needed any more are removed. A pod that policies select for a direction has a chain for it: what some
// policy allows returns from the chain, the rest is dropped. The node itself is not asked: it is not
// forwarded.
func (world *World) Rules(before []string) (string, []string) {
	var heads, bodies []string
	var chains []string
	pods := slices.Clone(world.Pods)
	sort.Slice(pods, func(i, j int) bool { return pods[i].UID < pods[j].UID })
	for _, pod := range pods {
		if pod.Spec.NodeName != world.Node || !reachable(pod) {
			continue
		}
		for _, direction := range []networking.PolicyType{networking.PolicyTypeEgress, networking.PolicyTypeIngress} {
			policies := world.selecting(pod, direction)
			if len(policies) == 0 {
				continue
			}
			chain, flag := name(pod, direction), "-s"
			if direction == networking.PolicyTypeIngress {
				flag = "-d"
			}
			chains = append(chains, chain)
			heads = append(heads, fmt.Sprintf("-A %s %s %s -j %s", root, flag, pod.Status.PodIP, chain))
			for _, policy := range policies {
				for _, match := range world.allowed(policy, pod, direction) {
					bodies = append(bodies, strings.TrimSuffix(fmt.Sprintf("-A %s %s", chain, match), " ")+" -j RETURN")
				}
			}
			bodies = append(bodies, fmt.Sprintf("-A %s -j DROP", chain))
		}
	}
	lines := []string{"*filter", ":" + root + " - [0:0]"}
	var gone []string
	for _, chain := range before {
		if !slices.Contains(chains, chain) {
			gone = append(gone, "-X "+chain)
			lines = append(lines, ":"+chain+" - [0:0]")
		}
	}
	for _, chain := range chains {
		lines = append(lines, ":"+chain+" - [0:0]")
	}
	lines = append(lines, "-A "+root+" -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN")
	lines = append(lines, heads...)
	lines = append(lines, bodies...)
	lines = append(lines, gone...)
	return strings.Join(append(lines, "COMMIT"), "\n") + "\n", chains
}

func name(pod *core.Pod, direction networking.PolicyType) string {
	hash := fnv.New64a()
	hash.Write([]byte(pod.UID))
	return fmt.Sprintf("US-%s-%016x", strings.ToUpper(string(direction)[:2]), hash.Sum64())
}

func reachable(pod *core.Pod) bool {
	ended := pod.Status.Phase == core.PodSucceeded || pod.Status.Phase == core.PodFailed
	return pod.Status.PodIP != "" && !pod.Spec.HostNetwork && !ended
}

func (world *World) selecting(pod *core.Pod, direction networking.PolicyType) []*networking.NetworkPolicy {
	var selecting []*networking.NetworkPolicy
	for _, policy := range world.Policies {
		if policy.Namespace == pod.Namespace && matches(&policy.Spec.PodSelector, pod.Labels) &&
			slices.Contains(policy.Spec.PolicyTypes, direction) {
			selecting = append(selecting, policy)
		}
	}
	sort.Slice(selecting, func(i, j int) bool { return selecting[i].Name < selecting[j].Name })
	return selecting
}

// allowed gives what a policy lets pass, as matches of iptables.
func (world *World) allowed(policy *networking.NetworkPolicy, pod *core.Pod, direction networking.PolicyType) []string {
	var all []string
	if direction == networking.PolicyTypeIngress {
		for _, rule := range policy.Spec.Ingress {
			for _, peer := range world.peers(policy.Namespace, rule.From) {
				all = append(all, combine(peer.match("-s"), ports(rule.Ports, pod))...)
			}
		}
		return all
	}
	for _, rule := range policy.Spec.Egress {
		for _, peer := range world.peers(policy.Namespace, rule.To) {
			all = append(all, combine(peer.match("-d"), ports(rule.Ports, peer.pod))...)
		}
	}
	return all
}

// A peer is a pod, a part of the network, or anyone.
type peer struct {
	pod  *core.Pod
	nets []string
}

func (peer peer) match(flag string) []string {
	switch {
	case peer.pod != nil:
		return []string{flag + " " + peer.pod.Status.PodIP}
	case peer.nets == nil:
		return []string{""}
	}
	var matches []string
	for _, net := range peer.nets {
		matches = append(matches, flag+" "+net)
	}
	return matches
}

func (world *World) peers(namespace string, wanted []networking.NetworkPolicyPeer) []peer {
	if len(wanted) == 0 {
		return []peer{{}}
	}
	var peers []peer
	for _, one := range wanted {
		if one.IPBlock != nil {
			peers = append(peers, peer{nets: without(one.IPBlock.CIDR, one.IPBlock.Except)})
			continue
		}
		for _, pod := range world.Pods {
			in := pod.Namespace == namespace
			if one.NamespaceSelector != nil {
				in = matches(one.NamespaceSelector, world.labelsOf(pod.Namespace))
			}
			if in && reachable(pod) && (one.PodSelector == nil || matches(one.PodSelector, pod.Labels)) {
				peers = append(peers, peer{pod: pod})
			}
		}
	}
	sort.SliceStable(peers, func(i, j int) bool { return address(peers[i]) < address(peers[j]) })
	return peers
}

func address(peer peer) string {
	if peer.pod == nil {
		return ""
	}
	return peer.pod.Status.PodIP
}

func (world *World) labelsOf(namespace string) map[string]string {
	for _, one := range world.Namespaces {
		if one.Name == namespace {
			return one.Labels
		}
	}
	return nil
}

// ports gives matches of ports; a name is looked up in the pod that listens.
func ports(wanted []networking.NetworkPolicyPort, listener *core.Pod) []string {
	if len(wanted) == 0 {
		return []string{""}
	}
	var matches []string
	for _, port := range wanted {
		protocol := core.ProtocolTCP
		if port.Protocol != nil {
			protocol = *port.Protocol
		}
		match := "-p " + strings.ToLower(string(protocol))
		switch {
		case port.Port == nil:
			matches = append(matches, match)
		case port.Port.Type == intstr.String:
			for _, number := range named(listener, port.Port.StrVal, protocol) {
				matches = append(matches, fmt.Sprintf("%s --dport %d", match, number))
			}
		case port.EndPort != nil:
			matches = append(matches, fmt.Sprintf("%s --dport %d:%d", match, port.Port.IntVal, *port.EndPort))
		default:
			matches = append(matches, fmt.Sprintf("%s --dport %d", match, port.Port.IntVal))
		}
	}
	return matches
}

func named(pod *core.Pod, name string, protocol core.Protocol) []int32 {
	var numbers []int32
	if pod == nil {
		return nil
	}
	for _, container := range pod.Spec.Containers {
		for _, port := range container.Ports {
			if port.Name == name && port.Protocol == protocol {
				numbers = append(numbers, port.ContainerPort)
			}
		}
	}
	return numbers
}

func combine(peers, ports []string) []string {
	var all []string
	for _, peer := range peers {
		for _, port := range ports {
			all = append(all, strings.TrimSpace(peer+" "+port))
		}
	}
	return all
}

func matches(selector *meta.LabelSelector, of map[string]string) bool {
	parsed, err := meta.LabelSelectorAsSelector(selector)
	return err == nil && parsed.Matches(labels.Set(of))
}
