// One binary that is a whole Kubernetes: every server of a cluster, chosen by the first argument.
//
// It adds nothing to them. It exists because prebuilt control planes can't be fetched where the tests
// run, while Kubernetes and etcd are ordinary Go modules.
package main

import (
	"context"
	"fmt"
	"os"
	"sort"
	"strings"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	"k8s.io/component-base/version"
	kubeapiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	kubecontrollermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	kubeproxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	kubescheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func main() {
	commands := map[string]func() *cobra.Command{
		"kube-apiserver":          kubeapiserver.NewAPIServerCommand,
		"kube-controller-manager": kubecontrollermanager.NewControllerManagerCommand,
		"kube-scheduler":          func() *cobra.Command { return kubescheduler.NewSchedulerCommand() },
		"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
		"kube-proxy":              kubeproxy.NewProxyCommand,
	}
	name := ""
	if len(os.Args) > 1 {
		name = os.Args[1]
	}
	// Each server reads its own flags from what follows its name.
	switch command, known := commands[name]; {
	case known:
		os.Args = os.Args[1:]
		os.Exit(cli.Run(command()))
	case name == "etcd":
		etcdmain.Main(os.Args[1:])
	case name == "version":
		fmt.Println(version.Get().GitVersion)
	default:
		names := []string{"etcd", "version"}
		for known := range commands {
			names = append(names, known)
		}
		sort.Strings(names)
		fmt.Fprintf(os.Stderr, "usage: kubernetes COMPONENT [FLAGS]; components: %s\n", strings.Join(names, ", "))
		os.Exit(2)
	}
}
