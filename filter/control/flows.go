package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/live"
)

// Lister lists flows that live: see live.List. Several goroutines may call it at once.
type Lister func(ctx context.Context, f live.Filter, show func(*live.Flow) error) (live.Summary, error)

// maxLists bounds how many lists are made at once. Whoever comes later waits.
const maxLists = 2

// line is one line of the answer to a list of flows. Only the last has a summary or
// an error, and a list without either was cut off.
type line struct {
	Flow    *live.Flow    `json:"flow,omitempty"`
	Summary *live.Summary `json:"summary,omitempty"`
	Error   string        `json:"error,omitempty"`
}

// listFlows answers with a line of JSON for each flow, as they are found: a list takes no
// memory, however long it is.
func listFlows(list Lister) http.HandlerFunc {
	turn := make(chan struct{}, maxLists)
	return func(w http.ResponseWriter, r *http.Request) {
		f, err := parseFilter(r.URL.Query())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
		case <-r.Context().Done():
			return
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		out := bufio.NewWriterSize(w, 1<<16)
		enc := json.NewEncoder(out)
		s, err := list(r.Context(), f, func(shown *live.Flow) error { return enc.Encode(line{Flow: shown}) })
		last := line{Summary: &s}
		if err != nil {
			last = line{Error: err.Error()}
		}
		// Errors here are the client's connection; there is no one to tell.
		_ = enc.Encode(last)
		_ = out.Flush()
	}
}

// Parameters of a list of flows.
const (
	paramPod      = "pod"
	paramAccount  = "account"
	paramProto    = "protocol"
	paramPort     = "port"
	paramUnjudged = "unjudged"
	paramLimit    = "limit"
)

func parseFilter(q url.Values) (f live.Filter, err error) {
	for name := range q {
		text := q.Get(name)
		switch name {
		case paramPod:
			f.Pod = text
		case paramAccount:
			f.Account = text
		case paramProto:
			f.Proto, err = flow.ParseProto(text)
			f.HasProto = true
		case paramPort:
			var n uint64
			n, err = strconv.ParseUint(text, 10, 16)
			f.Port = uint16(n)
		case paramUnjudged:
			f.Unjudged, err = strconv.ParseBool(text)
		case paramLimit:
			var n uint64
			n, err = strconv.ParseUint(text, 10, 31)
			f.Limit = int(n)
		default:
			err = errors.New("no such parameter")
		}
		if err != nil {
			return f, fmt.Errorf("parameter %q: %w", name, err)
		}
	}
	return f, nil
}

func query(f live.Filter) string {
	q := url.Values{}
	set := func(name, value string, wanted bool) {
		if wanted {
			q.Set(name, value)
		}
	}
	set(paramPod, f.Pod, f.Pod != "")
	set(paramAccount, f.Account, f.Account != "")
	set(paramProto, strconv.Itoa(int(f.Proto)), f.HasProto)
	set(paramPort, strconv.Itoa(int(f.Port)), f.Port != 0)
	set(paramUnjudged, "true", f.Unjudged)
	set(paramLimit, strconv.Itoa(f.Limit), f.Limit > 0)
	return q.Encode()
}

// Flows asks for flows that live, and hands them to show as they come. The flow is show's
// until it returns.
func (c *Client) Flows(ctx context.Context, f live.Filter, show func(*live.Flow) error) (live.Summary, error) {
	var s live.Summary
	broken, err := lines(ctx, c, "/v1/flows?"+query(f), func(l *line) (last bool, err error) {
		switch {
		case l.Error != "":
			return true, fmt.Errorf("the daemon: %s", l.Error)
		case l.Summary != nil:
			s = *l.Summary
			return true, nil
		case l.Flow == nil:
			return true, errors.New("read the list of flows: a line without a flow")
		}
		return false, show(l.Flow)
	})
	switch {
	case err != nil:
		return live.Summary{}, err
	case errors.Is(broken, io.EOF):
		return s, errors.New("the list of flows was cut off: the daemon ended, or it was read too slowly")
	case broken != nil:
		return s, fmt.Errorf("read the list of flows: %w", broken)
	}
	return s, nil
}
