// Enforces NetworkPolicies on one node, since the bridge plugin does not: it watches policies, pods and
// namespaces, and keeps iptables rules for the pods of its node. rules.go says which.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"log"
	"os/exec"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "who to be")
	node := flag.String("node", "", "whose pods to guard")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		log.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}

	factory := informers.NewSharedInformerFactory(client, 0)
	pods := factory.Core().V1().Pods()
	namespaces := factory.Core().V1().Namespaces()
	policies := factory.Networking().V1().NetworkPolicies()
	changed := make(chan struct{}, 1)
	notice := func() {
		select {
		case changed <- struct{}{}:
		default: // It is known already.
		}
	}
	for _, informer := range []cache.SharedIndexInformer{pods.Informer(), namespaces.Informer(), policies.Informer()} {
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { notice() },
			UpdateFunc: func(any, any) { notice() },
			DeleteFunc: func(any) { notice() },
		}); err != nil {
			log.Fatal(err)
		}
	}
	factory.Start(nil)
	factory.WaitForCacheSync(nil)

	applied, chains := "", []string{}
	again := time.NewTicker(10 * time.Second)
	for {
		world := World{Node: *node}
		world.Pods, _ = pods.Lister().List(labels.Everything())
		world.Namespaces, _ = namespaces.Lister().List(labels.Everything())
		world.Policies, _ = policies.Lister().List(labels.Everything())
		rules, now := world.Rules(chains)
		if rules != applied {
			if err := restore(rules); err != nil {
				log.Print(err)
				time.Sleep(time.Second)
				continue
			}
			log.Printf("guarding with %d chains", len(now))
			// The next time the chains that went are not there any more, so the rules read differently.
			applied, _ = world.Rules(now)
			chains = now
		}
		if err := hook(); err != nil {
			log.Print(err)
		}
		select {
		case <-changed:
		case <-again.C:
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func restore(rules string) error {
	command := exec.Command("iptables-restore", "--noflush", "--wait", "5")
	command.Stdin = bytes.NewBufferString(rules)
	if said, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("iptables-restore: %w: %s", err, said)
	}
	return nil
}

// hook makes all that is forwarded pass the rules first.
func hook() error {
	if exec.Command("iptables", "--wait", "5", "-C", "FORWARD", "-j", root).Run() == nil {
		return nil
	}
	if said, err := exec.Command("iptables", "--wait", "5", "-I", "FORWARD", "1", "-j", root).CombinedOutput(); err != nil {
		return fmt.Errorf("iptables: %w: %s", err, said)
	}
	return nil
}
