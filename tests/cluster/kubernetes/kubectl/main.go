// The command line of Kubernetes, of the same version as the test cluster's servers.
//
// It adds nothing to it. It exists so that a machine with Go alone can run the cluster's tests.
package main

import (
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

func main() {
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
}
