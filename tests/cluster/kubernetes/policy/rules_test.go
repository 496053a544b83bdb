package main

import (
	"slices"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func pod(name, node, address string) *core.Pod {
	return &core.Pod{
		ObjectMeta: meta.ObjectMeta{Name: name, Namespace: "n", UID: types.UID(name), Labels: map[string]string{"app": name}},
		Spec:       core.PodSpec{NodeName: node},
		Status:     core.PodStatus{PodIP: address},
	}
}

func TestOnlySelectedPodsOfTheNodeAreGuarded(t *testing.T) {
	only := func(app string) meta.LabelSelector {
		return meta.LabelSelector{MatchLabels: map[string]string{"app": app}}
	}
	friend := only("friend")
	world := World{Node: "a", Pods: []*core.Pod{pod("arm", "a", "10.0.0.1"), pod("friend", "b", "10.0.1.1"), pod("free", "a", "10.0.0.2")}}
	world.Policies = []*networking.NetworkPolicy{{
		ObjectMeta: meta.ObjectMeta{Name: "p", Namespace: "n"},
		Spec: networking.NetworkPolicySpec{
			PodSelector: only("arm"),
			PolicyTypes: []networking.PolicyType{networking.PolicyTypeIngress, networking.PolicyTypeEgress},
			Ingress:     []networking.NetworkPolicyIngressRule{{From: []networking.NetworkPolicyPeer{{PodSelector: &friend}}}},
		},
	}}
	rules, chains := world.Rules([]string{"US-IN-old"})
	in, out := name(world.Pods[0], networking.PolicyTypeIngress), name(world.Pods[0], networking.PolicyTypeEgress)
	if !slices.Equal(chains, []string{out, in}) {
		t.Fatalf("chains: %v", chains)
	}
	for _, wanted := range []string{
		"-A " + root + " -s 10.0.0.1 -j " + out,
		"-A " + in + " -s 10.0.1.1 -j RETURN\n-A " + in + " -j DROP",
		"-A " + out + " -j DROP",
		"-X US-IN-old",
	} {
		if !strings.Contains(rules, wanted+"\n") {
			t.Errorf("%q is not in\n%s", wanted, rules)
		}
	}
	if strings.Contains(rules, "10.0.0.2") {
		t.Errorf("a pod that no policy selects is guarded:\n%s", rules)
	}
}

func TestHolesAreTakenOutOfANetwork(t *testing.T) {
	got := without("10.0.0.0/30", []string{"10.0.0.2/32"})
	if !slices.Equal(got, []string{"10.0.0.0/31", "10.0.0.3"}) {
		t.Error(got)
	}
	if left := without("10.0.0.0/8", []string{"0.0.0.0/0"}); len(left) != 0 || left == nil {
		t.Error(left)
	}
}
