package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
)

// maxHead is Envoy's bound on the head of a request.
const maxHead = 60 << 10

// errMalformed is of a request that is answered 400.
var errMalformed = errors.New("malformed request")

// serveHTTP1 forwards requests, one after the other.
func (p *Proxy) serveHTTP1(c *connection) {
	for {
		r, err := readHead(c.in)
		if err != nil {
			if errors.Is(err, errMalformed) {
				refuse(c, 400, nil, "")
			}
			return
		}
		body, err := r.bodyReader(c.in)
		if err != nil {
			refuse(c, 400, nil, "")
			return
		}
		if r.size != 0 && p.cfg.MaxBody > 0 {
			if r.body, err = io.ReadAll(io.LimitReader(body, int64(p.cfg.MaxBody))); err != nil {
				return
			}
		}
		if a := p.ask(p.check(c, r)); !a.Allowed {
			refuse(c, a.status, a.header, a.body)
			return // what is left of the body is of no use
		}
		if again, err := p.forward1(c, r, body); err != nil || !again {
			return
		}
	}
}

// readHead reads the head of a request, and keeps it as it was written.
func readHead(in *bufio.Reader) (*request, error) {
	left := maxHead
	line := func() (string, error) {
		s, err := in.ReadString('\n')
		if left -= len(s); err != nil || left < 0 {
			return "", errors.Join(err, io.ErrUnexpectedEOF)
		}
		return strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r"), nil
	}
	first, err := line()
	if err != nil {
		return nil, err
	}
	parts := strings.Split(first, " ")
	if len(parts) != 3 || parts[0] == "" || parts[2] != "HTTP/1.1" && parts[2] != "HTTP/1.0" {
		return nil, errMalformed
	}
	if strings.Contains(parts[1], "#") {
		return nil, errMalformed // as Envoy, which refuses fragments unless told otherwise
	}
	r := &request{method: parts[0], path: parts[1], protocol: parts[2]}
	for {
		l, err := line()
		if err != nil {
			return nil, err
		}
		if l == "" {
			break
		}
		name, value, ok := strings.Cut(l, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t\x00") || strings.ContainsAny(value, "\r\x00") {
			return nil, errMalformed
		}
		r.header = append(r.header, field{name, strings.Trim(value, " \t")})
	}
	r.host = r.get("host")
	// The absolute form names host and path (RFC 9112, section 3.2.2), the authority
	// form a host alone.
	if u, err := url.Parse(r.path); err == nil && u.Scheme != "" && u.Host != "" {
		_, rest, _ := strings.Cut(r.path, "://")
		r.host, r.path = u.Host, strings.TrimPrefix(rest, u.Host)
	} else if r.method == http.MethodConnect {
		r.host, r.path = r.path, ""
	}
	return r, nil
}

// bodyReader gives the body, and finds out its size.
func (r *request) bodyReader(in *bufio.Reader) (io.Reader, error) {
	length, chunked := r.get("content-length"), r.get("transfer-encoding")
	switch {
	case length != "" && chunked != "", chunked != "" && !strings.EqualFold(chunked, "chunked"):
		return nil, errMalformed // smuggling
	case chunked != "":
		r.size = -1
		return httputil.NewChunkedReader(in), nil
	case length != "":
		n, err := strconv.ParseUint(length, 10, 62)
		if err != nil {
			return nil, errMalformed
		}
		r.size = int64(n)
		return io.LimitReader(in, r.size), nil
	}
	return strings.NewReader(""), nil
}

// forward1 sends a request on, and the answer back. It tells whether another request
// may follow on the connection.
func (p *Proxy) forward1(c *connection, r *request, body io.Reader) (again bool, err error) {
	b, err := p.cfg.Dial()
	if err != nil || !p.own(b) {
		refuse(c, 503, nil, "")
		return false, err
	}
	defer p.disown(b)
	w := bufio.NewWriter(b)
	target := r.path
	if r.method == http.MethodConnect {
		target = r.host
	}
	fmt.Fprintf(w, "%s %s HTTP/1.1\r\n", r.method, target)
	for _, f := range r.header {
		fmt.Fprintf(w, "%s: %s\r\n", f.name, f.value)
	}
	w.WriteString("\r\n")
	whole := io.MultiReader(strings.NewReader(string(r.body)), body)
	if r.size < 0 {
		chunks := httputil.NewChunkedWriter(w)
		if _, err := io.Copy(chunks, whole); err != nil {
			return false, err
		}
		chunks.Close()
		w.WriteString("\r\n")
	} else if _, err := io.CopyN(w, whole, r.size); err != nil {
		return false, err
	}
	if err := w.Flush(); err != nil {
		return false, err
	}
	in := bufio.NewReader(b)
	got, err := http.ReadResponse(in, &http.Request{Method: r.method})
	if err != nil {
		refuse(c, 503, nil, "")
		return false, err
	}
	defer got.Body.Close()
	if got.StatusCode == http.StatusSwitchingProtocols {
		if err := got.Write(c); err != nil {
			return false, err
		}
		splice(c, b, in)
		return false, nil
	}
	return !got.Close && r.get("connection") != "close", got.Write(c)
}

// refuse answers in place of the backend, and ends the connection.
func refuse(c net.Conn, status int, header map[string]string, body string) {
	r := http.Response{StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Close: true, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
	for k, v := range header {
		r.Header.Set(k, v)
	}
	r.Write(c)
}
