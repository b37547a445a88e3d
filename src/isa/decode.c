#include "isa/isa.h"
