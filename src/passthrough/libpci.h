/* libpci's header, which has the path of our own pci area's: the next one of that name. */
#pragma once

#include_next <pci/pci.h>
