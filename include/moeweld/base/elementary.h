#pragma once
/// exp, log, sin, cos, acos in float64 that give the same bits on every processor: glibc chooses variants by processor, these do not. Plain
/// multiply and add, no fused operations, no tables that depend on the machine. Accurate to 2 units in the last place over the ranges
/// that merging needs (sin, cos, acos: |x| up to 2^20; exp: results from 1e-300 to 1e300). sin and cos beyond 2^20, and arguments
/// outside a function's domain, give NaN.

namespace moeweld {

double exact_exp(double x);
double exact_log(double x);
double exact_sin(double x);
double exact_cos(double x);
double exact_acos(double x);

}  // namespace moeweld
