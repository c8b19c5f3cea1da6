package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/postern-project/postern/filter/flowlog"
	"github.com/postern-project/postern/filter/observe"
)

// streamTimeout is how long a watcher may take nothing of what it was sent, such as
// one whose output waits in a pager; then it is cut off.
const streamTimeout = 5 * time.Minute

// observe writes the last events and, where follow is asked for, those that come, one
// JSON object a line.
func (d *Daemon) observe(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	filter, err := observe.FilterOf(query)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	last, err := strconv.ParseUint(query.Get("last"), 10, 31)
	if err != nil {
		http.Error(w, fmt.Sprintf("last %q: want a number", query.Get("last")), http.StatusBadRequest)
		return
	}
	s := stream{ctl: http.NewResponseController(w), lines: json.NewEncoder(w)}
	if query.Get("follow") != "true" {
		w.Header().Set("Content-Type", streamType)
		_ = s.send(d.Feed.Last(int(last), &filter), 0)
		return
	}
	watch, events, err := d.Feed.Watch(int(last), filter)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer watch.Close()
	w.Header().Set("Content-Type", streamType)
	// The server's own deadline would end the request for want of further input.
	err = s.ctl.SetReadDeadline(time.Time{})
	var missed uint64
	for err == nil {
		if err = s.send(events, missed); err == nil {
			events, missed, err = watch.Next(r.Context(), events)
		}
	}
}

const streamType = "application/jsonl"

// stream writes to a client that may be slow. An error is the client's connection, and
// there is no one to tell.
type stream struct {
	ctl   *http.ResponseController
	lines *json.Encoder
}

func (s *stream) send(events []flowlog.Event, missed uint64) error {
	if err := s.ctl.SetWriteDeadline(time.Now().Add(streamTimeout)); err != nil {
		return err
	}
	for i := range events {
		if err := s.lines.Encode(observe.LineOf(&events[i])); err != nil {
			return err
		}
	}
	if missed > 0 {
		if err := s.lines.Encode(observe.Line{Missed: missed}); err != nil {
			return err
		}
	}
	return s.ctl.Flush()
}

// Observe gives the last events that match to each, oldest first, and with follow
// those that come, until ctx or the daemon ends or each fails. It returns nil when all
// is told or ctx has ended, and ErrUnreachable if the daemon is gone.
func (c *Client) Observe(ctx context.Context, f observe.Filter, last int, follow bool, each func(observe.Line) error) error {
	v := f.Values()
	v.Set("last", strconv.Itoa(last))
	v.Set("follow", strconv.FormatBool(follow))
	broken, err := lines(ctx, c, "/v1/observe?"+v.Encode(), func(l *observe.Line) (bool, error) { return false, each(*l) })
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil, errors.Is(broken, io.EOF) && !follow:
		return nil
	}
	return fmt.Errorf("%w: the daemon at %s ended the stream: %w", ErrUnreachable, c.path, broken)
}
