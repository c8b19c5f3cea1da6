package main

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/postern-project/postern/filter/replay"
)

// flowList writes flows one by one, as they end. A nil list writes none.
type flowList struct {
	cfg  *replay.Config
	w    *bufio.Writer
	json *json.Encoder
	csv  *csv.Writer
	err  error
}

// newFlowList makes a list for jsonl and csv; nil for other formats.
func newFlowList(format string, cfg *replay.Config, w io.Writer) *flowList {
	l := &flowList{cfg: cfg, w: bufio.NewWriter(w)}
	switch format {
	case "jsonl":
		l.json = newJSON(l.w)
	case "csv":
		l.csv = csv.NewWriter(l.w)
		l.err = l.csv.Write([]string{
			"flow", "first", "last", "verdict", "reason", "direction", "tier", "policy", "rule", "protocol",
			"from", "from_account", "source", "source_port", "to", "to_account", "destination", "destination_port",
			"icmp_type", "icmp_code", "packets", "packets_back", "bytes", "bytes_back", "mid_stream", "baseline_verdict",
		})
	default:
		return nil
	}
	return l
}

func (l *flowList) add(f *replay.Flow) {
	if l == nil || l.err != nil {
		return
	}
	r := l.cfg.Record(f)
	if l.json != nil {
		l.err = l.json.Encode(r)
		return
	}
	policy, rule, baseline := "", "", ""
	if r.Why.Rule != nil {
		policy, rule = r.Why.Rule.Name, fmt.Sprintf("%s[%d]", r.Why.Rule.Direction, r.Why.Rule.Index)
		if r.Why.Rule.Namespace != "" {
			policy = r.Why.Rule.Namespace + "/" + policy
		}
	}
	if r.Baseline != nil {
		baseline = r.Baseline.Verdict
	}
	row := []string{
		fmt.Sprint(r.Flow), timeText(r.First), timeText(r.Last), r.Verdict, r.Why.Reason, r.Why.Direction, r.Why.Tier, policy, rule, r.Protocol,
		podText(r.From), r.From.ServiceAccount, r.Source.String(), number(r.SourcePort), podText(r.To), r.To.ServiceAccount, r.Destination.String(), number(r.DestinationPort),
		optional(r.ICMPType), optional(r.ICMPCode), fmt.Sprint(r.Packets[0]), fmt.Sprint(r.Packets[1]), fmt.Sprint(r.Bytes[0]), fmt.Sprint(r.Bytes[1]),
		fmt.Sprint(r.MidStream), baseline,
	}
	for i := range row {
		row[i] = oneLine(row[i])
	}
	l.err = l.csv.Write(row)
}

func (l *flowList) flush() error {
	if l == nil || l.err != nil {
		return l.error()
	}
	if l.csv != nil {
		l.csv.Flush()
		if err := l.csv.Error(); err != nil {
			return err
		}
	}
	return l.w.Flush()
}

func (l *flowList) error() error {
	if l == nil {
		return nil
	}
	return l.err
}

func podText(e replay.EndRef) string {
	if e.Pod == "" {
		return ""
	}
	return e.Namespace + "/" + e.Pod
}

func number(port uint16) string {
	if port == 0 {
		return ""
	}
	return fmt.Sprint(port)
}

func optional(v *uint8) string {
	if v == nil {
		return ""
	}
	return fmt.Sprint(*v)
}

func timeText(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Format(time.RFC3339Nano)
}
