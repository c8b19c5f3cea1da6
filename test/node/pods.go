package node

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/postern-project/postern/test/lab"
)

// Pod is a pod that runs on the node.
type Pod struct {
	*lab.Host
	Object *core.Pod
}

// Create creates a pod with an account and labels, and waits until it runs. With an
// address it opens connections to it from its first moment on.
func (n *Node) Create(namespace, name, account string, labels map[string]string, connect ...string) (*Pod, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	grace := int64(1)
	o := &core.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
		Spec: core.PodSpec{
			ServiceAccountName: account, TerminationGracePeriodSeconds: &grace,
			Containers: []core.Container{{Name: "agent", Image: agentImage, ImagePullPolicy: core.PullNever, Args: connect}},
		},
	}
	pods := n.Client.CoreV1().Pods(namespace)
	for {
		_, err := pods.Create(ctx, o, metav1.CreateOptions{})
		if err == nil {
			break
		}
		// The controller manager may not have made the namespace's objects yet.
		if !apierrors.IsForbidden(err) && !apierrors.IsAlreadyExists(err) || ctx.Err() != nil {
			return nil, fmt.Errorf("node: create pod %s/%s: %w", namespace, name, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	var last *core.Pod
	for ctx.Err() == nil {
		p, err := pods.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("node: pod %s/%s: %w", namespace, name, err)
		}
		last = p
		if p.Status.Phase == core.PodRunning && len(p.Status.PodIPs) > 1 {
			return n.enter(p)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, fmt.Errorf("node: pod %s/%s does not run: %+v; %s", namespace, name, last.Status, n.Logs())
}

// Delete deletes a pod and waits until it is gone.
func (n *Node) Delete(p *Pod) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p.Leave()
	pods := n.Client.CoreV1().Pods(p.Object.Namespace)
	if err := pods.Delete(ctx, p.Object.Name, metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	for ctx.Err() == nil {
		o, err := pods.Get(ctx, p.Object.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && o.UID != p.Object.UID {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("node: pod %s stays; %s", p.Object.Name, n.Logs())
}

// enter finds the network namespace of a pod by the cgroups of its processes.
func (n *Node) enter(o *core.Pod) (*Pod, error) {
	var addrs []netip.Addr
	for _, ip := range o.Status.PodIPs {
		a, err := netip.ParseAddr(ip.IP)
		if err != nil {
			return nil, fmt.Errorf("node: pod %s: %w", o.Name, err)
		}
		addrs = append(addrs, a)
	}
	files, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil || !strings.Contains(string(text), "pod"+string(o.UID)) {
			continue
		}
		var pid int
		fmt.Sscanf(f, "/proc/%d/cgroup", &pid)
		h, err := lab.Enter(o.Name, pid, addrs...)
		if err != nil {
			continue // it may have ended
		}
		return &Pod{Host: h, Object: o}, nil
	}
	return nil, fmt.Errorf("node: no process of pod %s/%s found", o.Namespace, o.Name)
}
