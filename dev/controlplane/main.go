// Command controlplane is etcd, kube-apiserver and kubectl in one binary, for development and tests only.
//
// Which of them it is depends on the name that it is started under, as with BusyBox: the Python package
// kmseal_dev builds it once, puts it into a cache folder and links the three names to it. One link of one
// binary is much cheaper than three, because the three share most of their packages.
//
// It must stay free of logic: whatever runs here is exactly what the Kubernetes and etcd projects ship, so
// that a test that passes against it says something about a real cluster.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"

	// The API server's own main package links these in; without them its metrics and logs differ from a real one's.
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
)

func main() {
	switch name := filepath.Base(os.Args[0]); name {
	case "etcd":
		etcdmain.Main(os.Args)
	case "kube-apiserver":
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case "kubectl":
		if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
			kubectlutil.CheckErr(err)
		}
	default:
		fmt.Fprintf(os.Stderr, "%s: start me under the name etcd, kube-apiserver or kubectl\n", name)
		os.Exit(2)
	}
}
