package mappings

import (
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cura-health/ehr-sync/internal/cura"
)

func conversionBy(t require.TestingT, factor, offset string) conversion {
	f, ok := new(big.Rat).SetString(factor)
	require.True(t, ok)
	o, ok := new(big.Rat).SetString(offset)
	require.True(t, ok)
	_, fraction, _ := strings.Cut(factor, ".")
	_, fractionOffset, _ := strings.Cut(offset, ".")
	return conversion{to: "u", factor: f, offset: o, places: max(len(fraction), len(fractionOffset))}
}

// The result is exact, and has at least as many significant digits as the value had.
func TestConversionDigits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ value, factor, offset, want string }{
		{"5.4", "10", "0", "54"},
		{"5.40", "10", "0", "54.0"},
		{"5.400", "1000", "0", "5400"},
		{"1200", "0.001", "0", "1.200"},
		{"-12", "0.5", "0", "-6.0"},
		{"7", "18.016", "0", "126.112"},
		{"53.0", "0.09148", "2.152", "7.00044"},
		{"37.0", "1.8", "32", "98.6"},
		{"-40", "1.8", "32", "-40"},
		{"-17.5", "1", "17.5", "0.00"},
		{"0", "10", "0", "0"},
		{"0.00", "10", "0", "0.00"},
		{"-0.0", "10", "0", "0.0"},
		{"1.50e3", "0.1", "0", "150"},
		{"1.50E-3", "10", "0", "0.0150"},
		{"0.0050", "10", "0", "0.050"},
		{"1e+2", "1", "0", "100"},
		{strings.Repeat("9", maxDigits), "1", "0", strings.Repeat("9", maxDigits)},
	} {
		t.Run(tt.value+" by "+tt.factor, func(t *testing.T) {
			t.Parallel()
			got, ok := conversionBy(t, tt.factor, tt.offset).of(json.Number(tt.value))
			require.True(t, ok)
			require.Equal(t, tt.want, got.String())
		})
	}
	for _, tooLong := range []string{strings.Repeat("9", maxDigits+1), "1e41", "1E-41", "1e999999999", "1e99999999999999999999", "", "x", "0x10", "1/2"} {
		_, ok := conversionBy(t, "10", "0").of(json.Number(tooLong))
		require.False(t, ok, tooLong)
	}
}

// A conversion there and back gives the very number, whatever its digits.
func TestConversionThereAndBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.StringMatching(`-?(0|[1-9][0-9]{0,8})(\.[0-9]{1,8})?`).Draw(t, "value")
		pair := rapid.SampledFrom([][2]string{{"10", "0.1"}, {"0.001", "1000"}, {"2.5", "0.4"}, {"1.25", "0.8"}, {"0.015625", "64"}}).Draw(t, "factors")
		shift := rapid.SampledFrom([]string{"0", "32", "2.152", "-273.15"}).Draw(t, "offset")
		forth := conversionBy(t, pair[0], shift)
		// (x - b) / a is x * (1/a) - b/a.
		back := conversionBy(t, pair[1], "0")
		back.offset = new(big.Rat).Neg(new(big.Rat).Mul(forth.offset, back.factor))
		back.places += forth.places

		there, ok := forth.of(json.Number(value))
		require.True(t, ok)
		again, ok := back.of(there)
		require.True(t, ok)
		want, _ := new(big.Rat).SetString(value)
		got, _ := new(big.Rat).SetString(again.String())
		require.Zero(t, want.Cmp(got), "%s, %s, %s", value, there, again)
		whole, fraction, _ := strings.Cut(value, ".")
		wholeThere, fractionThere, _ := strings.Cut(there.String(), ".")
		require.GreaterOrEqual(t, significant(wholeThere, fractionThere), significant(whole, fraction))
		require.True(t, json.Valid([]byte(there)), "a decimal of JSON")
	})
}

// A number of few characters may have a billion digits: it is rejected, by its element, and its value isn't told.
func TestAValueOfTooManyDigitsIsRejected(t *testing.T) {
	t.Parallel()
	o := overridesOf(t, "version: 1\nunits: [{resource: Observation, code: any, from: u, to: v, factor: 2}]")
	for name, tt := range map[string]struct{ elements, path string }{
		"value":          {`"valueQuantity":{"value":1e999999999,"unit":"u"}`, "Observation.valueQuantity"},
		"low":            {`"valueRange":{"low":{"value":1e999999999,"unit":"u"}}`, "Observation.valueRange.low"},
		"component":      {`"component":[{"code":{"text":"y"},"valueQuantity":{"value":1e999999999,"unit":"u"}}]`, "Observation.component[0].valueQuantity"},
		"numerator":      {`"valueRatio":{"numerator":{"value":1e999999999,"unit":"u"}}`, "Observation.valueRatio.numerator"},
		"reference high": {`"referenceRange":[{"text":"z"},{"high":{"value":1e999999999,"unit":"u"}}]`, "Observation.referenceRange[1].high"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw := []byte(`{"resourceType":"Observation","id":"1","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/1"},` + tt.elements + `}`)
			_, err := Map(raw)
			require.NoError(t, err, "unconverted it may stay")
			_, err = MapWith(raw, o)
			var rejected *RejectedError
			require.ErrorAs(t, err, &rejected)
			require.Equal(t, []Reason{{tt.path, "has more digits than can be converted"}}, rejected.Reasons)
		})
	}
}

// Where a unit stands, and what stands beside it, decides what is converted.
func TestWhichUnitsAreConverted(t *testing.T) {
	t.Parallel()
	o := overridesOf(t, `
version: 1
units:
  - {resource: Observation, code: any, from: u, to: v, factor: 2}
  - {resource: Observation, code: {system: "urn:s", code: a}, from: u, to: w, factor: 3}
`)
	for name, tt := range map[string]struct{ code, quantity, want string }{
		"by its unit":                      {"b", `{"value":1,"unit":"u"}`, "2 v"},
		"blanks around it":                 {"b", `{"value":1,"unit":" u "}`, "2 v"},
		"by its code":                      {"b", `{"value":1,"unit":"other","code":"u"}`, "2 v"},
		"by its code in UCUM":              {"b", `{"value":1,"unit":"v","system":"http://unitsofmeasure.org","code":"u"}`, "2 v"},
		"the UCUM code says another":       {"b", `{"value":1,"unit":"u","system":"http://unitsofmeasure.org","code":"x"}`, "1 u"},
		"the UCUM code by OID, too":        {"b", `{"value":1,"unit":"u","system":"urn:oid:2.16.840.1.113883.6.8","code":"x"}`, "1 u"},
		"a code of another system":         {"b", `{"value":1,"unit":"u","system":"urn:local","code":"x"}`, "2 v"},
		"case counts":                      {"b", `{"value":1,"unit":"U"}`, "1 U"},
		"no unit":                          {"b", `{"value":1}`, "1 "},
		"the code's own rule goes first":   {"a", `{"value":1,"unit":"u"}`, "3 w"},
		"a comparator stays":               {"a", `{"value":1,"comparator":"<","unit":"u"}`, "<3 w"},
		"only a unit says nothing to turn": {"b", `{"unit":"u"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			record, err := MapWith(fmt.Appendf(nil, `{"resourceType":"Observation","id":"1","status":"final","subject":{"reference":"Patient/1"},
				"code":{"coding":[{"system":"urn:s","code":%q}]},"valueQuantity":%s}`, tt.code, tt.quantity), o)
			require.NoError(t, err)
			got := ""
			if v := record.Observation.Value; v != nil {
				got = v.Quantity.Comparator + v.Quantity.Value.String() + " " + v.Quantity.Unit
			}
			require.Equal(t, tt.want, got)
		})
	}
}

// Reference ranges follow their value: never is the one in the new unit and the other, without a unit, in the old one.
func TestReferenceRangesFollowTheValue(t *testing.T) {
	t.Parallel()
	o := overridesOf(t, "version: 1\nunits: [{resource: Observation, code: any, from: u, to: v, factor: 2}, {resource: Observation, code: any, from: V, to: v, same: true}]")
	quantity := func(value, unit string) *cura.Quantity {
		if unit == "v" {
			return &cura.Quantity{Value: json.Number(value), Unit: unit, System: systemUCUM, Code: unit}
		}
		return &cura.Quantity{Value: json.Number(value), Unit: unit}
	}
	for name, tt := range map[string]struct {
		value, ranges string
		want          cura.ReferenceRange
	}{
		"ends without a unit":     {`"valueQuantity":{"value":1,"unit":"u"},`, `{"low":{"value":1},"high":{"value":2}}`, cura.ReferenceRange{Low: quantity("2", "v"), High: quantity("4", "v")}},
		"one end with a unit":     {`"valueQuantity":{"value":1,"unit":"u"},`, `{"low":{"value":1},"high":{"value":2,"unit":"u"}}`, cura.ReferenceRange{Low: quantity("2", "v"), High: quantity("4", "v")}},
		"an end of another unit":  {`"valueQuantity":{"value":1,"unit":"u"},`, `{"low":{"value":1},"high":{"value":2,"unit":"x"}}`, cura.ReferenceRange{Low: quantity("1", ""), High: quantity("2", "x")}},
		"a value of no rule":      {`"valueQuantity":{"value":1,"unit":"x"},`, `{"low":{"value":1},"high":{"value":2,"unit":"u"}}`, cura.ReferenceRange{Low: quantity("1", ""), High: quantity("2", "u")}},
		"a value without a unit":  {`"valueQuantity":{"value":1},`, `{"low":{"value":1,"unit":"u"}}`, cura.ReferenceRange{Low: quantity("1", "u")}},
		"a value in words":        {`"valueString":"1 u",`, `{"low":{"value":1,"unit":"u"}}`, cura.ReferenceRange{Low: quantity("1", "u")}},
		"no value":                {``, `{"low":{"value":1,"unit":"u"},"text":"1"}`, cura.ReferenceRange{Low: quantity("2", "v"), Text: "1 (u)"}},
		"a text":                  {`"valueQuantity":{"value":1,"unit":"u"},`, `{"text":"1 - 2"}`, cura.ReferenceRange{Text: "1 - 2 (u)"}},
		"a text that says it":     {`"valueQuantity":{"value":1,"unit":"u"},`, `{"text":"1 - 2 u"}`, cura.ReferenceRange{Text: "1 - 2 u"}},
		"a text, the unit stays":  {`"valueQuantity":{"value":1,"unit":"V"},`, `{"text":"1 - 2"}`, cura.ReferenceRange{Text: "1 - 2"}},
		"a range as the value":    {`"valueRange":{"high":{"value":1,"unit":"u"}},`, `{"high":{"value":1}}`, cura.ReferenceRange{High: quantity("2", "v")}},
		"a ratio is no such unit": {`"valueRatio":{"numerator":{"value":1,"unit":"u"}},`, `{"high":{"value":1}}`, cura.ReferenceRange{High: quantity("1", "")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			record, err := MapWith([]byte(`{"resourceType":"Observation","id":"1","status":"final","subject":{"reference":"Patient/1"},"code":{"text":"x"},`+
				tt.value+`"referenceRange":[`+tt.ranges+`]}`), o)
			require.NoError(t, err)
			require.Equal(t, []cura.ReferenceRange{tt.want}, record.Observation.ReferenceRanges)
		})
	}
}
