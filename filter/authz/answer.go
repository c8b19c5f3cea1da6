package authz

import (
	"fmt"
	"sync"
	"sync/atomic"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/postern-project/postern/filter"
)

// Status gives the gRPC code of an answer (spec section 9).
func Status(o filter.Outcome) codes.Code {
	switch {
	case o.Verdict == filter.Accept:
		return codes.OK
	case o.Reason == filter.InvalidRequest:
		return codes.InvalidArgument
	case o.Reason == filter.NotReady || o.Reason == filter.NoReason:
		return codes.Internal
	default:
		return codes.PermissionDenied
	}
}

// httpStatus is what the client behind the proxy gets.
func httpStatus(c codes.Code) typev3.StatusCode {
	switch c {
	case codes.InvalidArgument:
		return typev3.StatusCode_BadRequest
	case codes.Internal:
		return typev3.StatusCode_ServiceUnavailable
	default:
		return typev3.StatusCode_Forbidden
	}
}

// respond makes the message for an outcome. The client behind the proxy is told the
// reason and no more. The proxy is told what decided, as dynamic metadata, which an
// access log can show.
func respond(rs *filter.Ruleset, o filter.Outcome) *authv3.CheckResponse {
	code := Status(o)
	out := &authv3.CheckResponse{
		Status:          &status.Status{Code: int32(code)},
		DynamicMetadata: &structpb.Struct{Fields: map[string]*structpb.Value{}},
	}
	tell := out.DynamicMetadata.Fields
	tell["reason"] = structpb.NewStringValue(o.Reason.String())
	if rs != nil {
		tell["generation"] = structpb.NewNumberValue(float64(rs.Generation()))
		if i := rs.RuleInfo(o.Rule); o.Rule != 0 {
			tell["tier"] = structpb.NewStringValue(i.Tier)
			if !i.EndOfTier() {
				name := i.Name
				if i.Namespace != "" {
					name = i.Namespace + "/" + name
				}
				tell["policy"] = structpb.NewStringValue(i.Kind + " " + name)
				tell["rule"] = structpb.NewNumberValue(float64(i.Index))
			}
		}
	}
	if code == codes.OK {
		out.HttpResponse = &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{}}
		return out
	}
	out.Status.Message = "denied: " + o.Reason.String()
	out.HttpResponse = &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
		Status: &typev3.HttpStatus{Code: httpStatus(code)},
		Headers: []*corev3.HeaderValueOption{{
			Header:       &corev3.HeaderValue{Key: "content-type", Value: "text/plain"},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}},
		Body: fmt.Sprintf("denied by policy: %s\n", o.Reason),
	}}
	return out
}

// answers keeps the messages for the ruleset in force, encoded: there are no more
// than it has rules and there are reasons.
type answers struct{ current atomic.Pointer[answersOf] }

type answersOf struct {
	ruleset *filter.Ruleset
	encoded sync.Map // outcome to []byte
}

// encode gives the message for an outcome, which must not be changed.
func (a *answers) encode(rs *filter.Ruleset, o filter.Outcome) []byte {
	of := a.current.Load()
	if of == nil || of.ruleset != rs {
		next := &answersOf{ruleset: rs}
		// Two that decide on the rulesets before and after a change may replace
		// each other's; the memory is for speed only.
		a.current.CompareAndSwap(of, next)
		of = next
	}
	o.Logged = false
	if b, known := of.encoded.Load(o); known {
		return b.([]byte)
	}
	b, err := proto.Marshal(respond(rs, o))
	if err != nil {
		// Texts of ours that are not UTF-8: names of objects are checked on the way
		// in. Deny all the same.
		b, _ = proto.Marshal(&authv3.CheckResponse{Status: &status.Status{Code: int32(codes.Internal)}})
	}
	of.encoded.Store(o, b)
	return b
}
