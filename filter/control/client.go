package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/postern-project/postern/filter/flow"
	"github.com/postern-project/postern/filter/policy"
)

// ErrUnreachable: no daemon answers at the socket.
var ErrUnreachable = errors.New("no daemon answers")

// Client asks the daemon behind one socket.
type Client struct {
	path string
	http http.Client
}

// answerTimeout is how long a daemon that is connected may take to begin its answer. A
// snapshot of 100,000 pods is made in two seconds or three.
const answerTimeout = 15 * time.Second

// NewClient returns a client; nothing is connected before the first question.
func NewClient(path string) *Client {
	return &Client{path: path, http: http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
		DisableKeepAlives:     true,
		ResponseHeaderTimeout: answerTimeout,
	}}}
}

// Snapshot gives the snapshot in force and the name of the daemon's node.
func (c *Client) Snapshot(ctx context.Context) (s *policy.Snapshot, node string, err error) {
	r, err := c.do(ctx, http.MethodGet, "/v1/snapshot", nil)
	if err != nil {
		return nil, "", err
	}
	defer r.Body.Close()
	s, err = policy.ReadJSON(r.Body)
	return s, r.Header.Get(nodeHeader), err
}

// lines asks for a path whose answer is a stream of JSON values, and hands each to next, until
// that says that it was the last. At the end of the stream, or where it breaks, it
// returns what its decoder says.
func lines[T any](ctx context.Context, c *Client, path string, next func(*T) (last bool, err error)) (broken, err error) {
	r, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	for d := json.NewDecoder(bufio.NewReaderSize(r.Body, 1<<16)); ; {
		var v T
		if broken := d.Decode(&v); broken != nil {
			return broken, nil
		}
		if last, err := next(&v); last || err != nil {
			return nil, err
		}
	}
}

// Status tells how the daemon is.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	r, err := c.do(ctx, http.MethodGet, "/v1/status", nil)
	if err != nil {
		return s, err
	}
	defer r.Body.Close()
	if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
		return s, fmt.Errorf("read the status: %w", err)
	}
	return s, nil
}

// Decide asks the engine that decides packets.
func (c *Client) Decide(ctx context.Context, t flow.Tuple) (d Decision, err error) {
	body, err := json.Marshal(t)
	if err != nil {
		return d, fmt.Errorf("encode the flow: %w", err)
	}
	r, err := c.do(ctx, http.MethodPost, "/v1/decide", body)
	if err != nil {
		return d, err
	}
	defer r.Body.Close()
	if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
		return d, fmt.Errorf("read the decision: %w", err)
	}
	return d, nil
}

func (c *Client) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	// The host part is required and not used.
	req, err := http.NewRequestWithContext(ctx, method, "http://postern"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r, err := c.http.Do(req)
	if err != nil {
		var request *url.Error // names a URL that nobody else has heard of
		if errors.As(err, &request) {
			err = request.Err
		}
		var dial *net.OpError // names the path once more
		if errors.As(err, &dial) {
			err = dial.Err
		}
		if slow := net.Error(nil); errors.As(err, &slow) && slow.Timeout() && ctx.Err() == nil {
			err = errors.New("it is there and does not begin to answer, as if it was stopped")
		}
		return nil, fmt.Errorf("%w at %s: %w", ErrUnreachable, c.path, err)
	}
	if r.StatusCode != http.StatusOK {
		defer r.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(r.Body, 1<<10))
		return nil, fmt.Errorf("the daemon at %s: %s: %s", c.path, r.Status, strings.TrimSpace(string(text)))
	}
	return r, nil
}
