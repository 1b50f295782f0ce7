package ehr

import (
	"net"
	"net/url"
	"slices"
	"strings"
)

// origin is scheme, host and port with the default port written out, as RFC 6454 compares them.
type origin struct{ scheme, host, port string }

func originOf(u *url.URL) origin {
	o := origin{scheme: strings.ToLower(u.Scheme), host: strings.ToLower(u.Hostname()), port: u.Port()}
	if o.port == "" {
		o.port = "443"
		if o.scheme == "http" {
			o.port = "80"
		}
	}
	return o
}

func (o origin) address() string { return net.JoinHostPort(o.host, o.port) }

// below reports whether u lies at or under base, in the same origin. Servers write next links at the base itself, with
// the default port spelled out, or in another case (DOMAIN §2); they must not write them anywhere else.
func below(base, u *url.URL) bool {
	if originOf(base) != originOf(u) || u.User != nil || u.Opaque != "" {
		return false
	}
	// Path is decoded, so %2e%2e counts too: what a server makes of dots is not to be relied on.
	if slices.Contains(strings.Split(u.Path, "/"), "..") || strings.Contains(u.Path, `\`) {
		return false
	}
	return u.Path == base.Path || strings.HasPrefix(u.Path, base.Path+"/")
}

// pagingOrigins reads a profile's paging hosts, which profile.Parse has checked.
func pagingOrigins(texts []string) []origin {
	var origins []origin
	for _, text := range texts {
		if u, err := url.Parse(text); err == nil {
			origins = append(origins, originOf(u))
		}
	}
	return origins
}

// sameDomain reports whether a token endpoint found in the server's own documents may be given the secret: the same
// host, or a host under the same registrable domain. The list of public suffixes is approximated: two labels, or three
// below a country's short second level such as co.uk. Where that is too strict an operator names the token endpoint.
func sameDomain(base, token string) bool {
	base, token = strings.ToLower(base), strings.ToLower(token)
	if base == token {
		return true
	}
	if net.ParseIP(base) != nil || net.ParseIP(token) != nil {
		return false
	}
	domain := registrable(base)
	return domain != "" && (token == domain || strings.HasSuffix(token, "."+domain))
}

func registrable(host string) string {
	labels := strings.Split(host, ".")
	need := 2
	if n := len(labels); n >= 2 && len(labels[n-1]) == 2 && len(labels[n-2]) <= 3 {
		need = 3
	}
	if len(labels) < need {
		return ""
	}
	return strings.Join(labels[len(labels)-need:], ".")
}

// originText is an address without its path and query.
func originText(u *url.URL) string { return u.Scheme + "://" + u.Host }
