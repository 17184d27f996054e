package siteconf

import (
	"regexp"
	"slices"
	"strings"
)

// methods is a set of the HTTP methods that clients of a registry use.
type methods uint8

const (
	get methods = 1 << iota
	head
	options
	post
	put
	patch
	del

	reads  = get | head | options
	writes = post | put | patch | del
	every  = reads | writes
)

var methodNames = []string{"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"}

func (m methods) String() string {
	var names []string
	for i, name := range methodNames {
		if m&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// named is the set of methods with these names. Whoever allows GET allows HEAD (https://nginx.org/en/docs/http/ngx_http_core_module.html#limit_except).
func named(names []string) (m methods) {
	for i, name := range methodNames {
		if slices.Contains(names, name) {
			m |= 1 << i
		}
	}
	if m&get != 0 {
		m |= head
	}
	return m
}

// when tells for which methods a condition of `if` holds; ok is false when it asks about something else.
func (s *Site) when(condition []string) (m methods, ok bool) {
	if len(condition) == 0 {
		return 0, false
	}
	for i, name := range methodNames {
		value, known := s.ofMethod(condition[0], name)
		if !known {
			return 0, false
		}
		holds, known := compare(value, condition[1:])
		if !known {
			return 0, false
		}
		if holds {
			m |= 1 << i
		}
	}
	return m, true
}

func compare(value string, test []string) (holds, known bool) {
	if len(test) == 0 {
		return value != "" && value != "0", true
	}
	if len(test) != 2 {
		return false, false
	}
	operator, not := strings.CutPrefix(test[0], "!")
	switch operator {
	case "=":
		holds = value == test[1]
	case "~", "~*":
		expression, err := pattern(operator, test[1])
		if err != nil {
			return false, false
		}
		holds = expression.MatchString(value)
	default:
		return false, false
	}
	return holds != not, true
}

// pattern compiles a regular expression of nginx, which is PCRE's: Go does not know all of those.
func pattern(operator, expression string) (*regexp.Regexp, error) {
	if operator == "~*" {
		expression = "(?i)" + expression
	}
	return regexp.Compile(expression)
}

// ofMethod is what a variable is worth for a request with a method: $request_method itself, or what a map makes of it.
func (s *Site) ofMethod(variable, method string) (value string, known bool) {
	if plain(variable) == "$request_method" {
		return method, true
	}
	maps := s.maps[plain(variable)]
	if len(maps) != 1 || plain(maps[0].arg(0)) != "$request_method" {
		return "", false
	}
	var fallback, matched string
	found := false
	for _, entry := range maps[0].body {
		key, value := entry.name, entry.arg(0)
		switch operator, expression := cutOperator(key); {
		case key == "default":
			fallback = value
		case operator != "":
			if e, err := pattern(operator, expression); err != nil {
				return "", false
			} else if !found && e.MatchString(method) {
				matched, found = value, true
			}
		case strings.EqualFold(strings.TrimPrefix(key, `\`), method): // a literal key goes before any expression
			return value, true
		}
	}
	if found {
		return matched, true
	}
	return fallback, true
}

func cutOperator(key string) (operator, expression string) {
	for _, operator := range []string{"~*", "~"} {
		if expression, ok := strings.CutPrefix(key, operator); ok {
			return operator, expression
		}
	}
	return "", key
}

// plain writes ${name} as $name.
func plain(variable string) string {
	if name, ok := strings.CutPrefix(variable, "${"); ok {
		return "$" + strings.TrimSuffix(name, "}")
	}
	return variable
}

// variable finds the variables in a value.
var variable = regexp.MustCompile(`\$\{\w+\}|\$\w+`)
